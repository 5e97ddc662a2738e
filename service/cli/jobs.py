"""`resight backup`, `restore` and what else is done to a whole gallery, beside the service or without it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.messages import INTERRUPTED, printing, refusals, say, stop

if TYPE_CHECKING:
    from service.jobs.job import Progress
    from service.jobs.manifest import Manifest
    from service.jobs.reembed import Lost
    from service.settings import Settings

NAMED_CROPS = 100

Gallery = Annotated[str | None, typer.Option(help="Where the gallery is kept. [default: sqlite:///data]")]


def job_commands() -> tuple[Callable[..., None], ...]:
    """The commands of this module."""
    return backup, restore, reembed


def backup(
    target: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder to make.")],
    gallery: Gallery = None,
) -> None:
    """Copy the gallery, also while the service runs.

    FOLDER appears when all of it is written and checked. It holds pictures of people: keep it as safe as the
    gallery, and no longer than crops may be kept.
    """
    with _job("backing up", "pages") as progress:
        from service.jobs.backup import back_up

        made = back_up(_settings(gallery=gallery).gallery_folder, target, progress)
    with printing():
        typer.echo(f"{_contents(made)} backed up to {target}")


def restore(
    backup: Annotated[Path, typer.Argument(metavar="FOLDER", help="What `resight backup` made.")],
    gallery: Gallery = None,
) -> None:
    """Put a backup into an empty folder, every byte of it checked.

    No gallery is ever replaced: to go back to a backup, stop the service and move its data folder away first.
    """
    with _job("restoring", "bytes") as progress:
        from service.jobs.restore import restore as put_back

        folder = _settings(gallery=gallery).gallery_folder
        found = put_back(backup, folder, progress)
    with printing():
        typer.echo(f"{_contents(found)} of {found.created} restored to {folder}")
        if found.model is not None:
            typer.echo(f"serve it with the model {found.model.name} (sha256 {found.model.sha256[:12]}…)")


def reembed(
    model: Annotated[
        Path | None, typer.Option(help="The new model file. [default: models/market1501-int8.onnx]")
    ] = None,
    gallery: Gallery = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or tensorrt. [default: auto]")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of inference. [default: all cores]")] = None,
    drop_missing: Annotated[
        bool, typer.Option("--drop-missing", help="Erase the crops that have no picture to embed.")
    ] = False,
) -> None:
    """Embed the gallery's stored pictures with another model; stop the service first.

    The old embeddings stay until all new ones are there: stopped or killed, the gallery is still that of the old
    model, and the same command goes on.
    """
    with _job("embedding", "crops") as progress:
        from service.inference.engine import load_engine
        from service.inference.model import read_model
        from service.jobs.reembed import PicturesMissing
        from service.jobs.reembed import reembed as embed_again

        chosen = _settings(model=model, gallery=gallery, device=device, threads=threads)
        engine = load_engine(read_model(chosen.model), chosen.device, chosen.effective_threads, chosen.max_batch)
        try:
            done = embed_again(chosen.gallery_folder, engine, drop_missing=drop_missing, progress=progress)
        except PicturesMissing as missing:
            _name(missing.lost)
            raise
    _name(done.dropped)
    with printing():
        if not done.needed:
            typer.echo(f"the gallery belongs to {engine.info.name} already: nothing to do")
            return
        earlier = f", {done.found:,} had been before" if done.found else ""
        typer.echo(f"{done.embedded:,} crops embedded by {engine.info.name}{earlier}, {len(done.dropped):,} erased")


def _name(lost: Sequence[Lost]) -> None:
    for one in lost[:NAMED_CROPS]:
        say(f"{one.crop_id} ({one.identity or 'without identity'}): {one.reason}")
    if len(lost) > NAMED_CROPS:
        say(f"and {len(lost) - NAMED_CROPS:,} more")


def _contents(manifest: Manifest) -> str:
    counts = manifest.counts
    return f"{counts.crops:,} crops of {counts.identities:,} identities, {counts.pictures:,} pictures,"


@contextmanager
def _job(doing: str, unit: str) -> Iterator[Progress]:
    """Shows progress on stderr; ends the command with one line when the job cannot be done."""
    from service.cli.terminal import console, job_progress
    from service.gallery.records import GalleryError
    from service.inference.engine import EngineError
    from service.inference.model import ModelError
    from service.jobs.job import JobError

    try:
        with job_progress(console(stderr=True), doing, unit) as progress:
            yield progress
    except (JobError, GalleryError, ModelError, EngineError) as error:
        stop(str(error))
    except KeyboardInterrupt:
        stop(
            f"Stopped while {doing}: nothing is changed by half; the same command starts or goes on again.", INTERRUPTED
        )


def _settings(**options: Any) -> Settings:
    from pydantic import ValidationError

    from service.settings import Settings

    try:
        return Settings(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        stop(refusals(error))
