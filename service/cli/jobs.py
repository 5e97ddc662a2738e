"""`resight backup`, `restore` and what else is done to a whole gallery, beside the service or without it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.calibration import calibration_lines, labelled_pictures
from service.cli.messages import INTERRUPTED, SOME_FAILED, printing, refusals, say, stop

if TYPE_CHECKING:
    from service.inference.engine import OnnxEngine
    from service.jobs.import_crops import NotImported
    from service.jobs.job import Progress
    from service.jobs.manifest import Manifest
    from service.jobs.reembed import Lost
    from service.settings import Settings

NAMED_CROPS = 100

ModelFile = Annotated[
    Path | None, typer.Option("--model", help="The model file. [default: models/market1501-int8.onnx]")
]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or tensorrt. [default: auto]")]
Threads = Annotated[int | None, typer.Option(help="Threads of inference. [default: all cores]")]
Gallery = Annotated[str | None, typer.Option(help="Where the gallery is kept. [default: sqlite:///data]")]


def migrate(
    to: Annotated[str, typer.Argument(metavar="MILVUS_URL", help="milvus://HOST:PORT/COLLECTION")],
    gallery: Gallery = None,
    index: Annotated[
        str | None, typer.Option(help="Of a new collection: exact, hnsw, ivf or compressed. [default: exact]")
    ] = None,
    drop_pictures: Annotated[
        bool, typer.Option("--drop-pictures", help="Move the rest where there is no place for pictures.")
    ] = False,
) -> None:
    """Move the gallery in a folder into a collection of Milvus; stop the service first.

    The folder stays as it is. Stopped or killed, the same command goes on. At last counts and checksums are compared.
    Exit code: 0 all well, 1 damaged crops were left out, 2 it is not done.
    """
    with _job("migrating", "crops") as progress:
        from service.galleries import open_milvus
        from service.jobs.migrate import migrate as move
        from service.jobs.migrate import model_of, require_room_for_pictures
        from service.settings import FOR_MILVUS

        folder = _settings(FOR_MILVUS, gallery=gallery).gallery_folder
        chosen = _settings(gallery=to, index=index)
        if chosen.milvus_address is None:
            stop(f"{to} is not in Milvus; say milvus://HOST:PORT/COLLECTION.")
        model = model_of(folder)
        if chosen.pictures is None and not drop_pictures:
            require_room_for_pictures(folder)
        with open_milvus(chosen, chosen.milvus_address, model) as target:
            done = move(folder, target, with_pictures=not drop_pictures, progress=progress)
    for crop_id in done.damaged[:NAMED_CROPS]:
        say(f"{crop_id}: its embedding is damaged")
    with printing():
        typer.echo(
            f"{done.written:,} crops and {done.pictures:,} pictures migrated, {done.known:,} there already; both have"
            f" {done.contents.crops:,} crops with checksum {done.contents.checksum[:16]}"
        )
    if done.damaged:
        raise typer.Exit(SOME_FAILED)


def job_commands() -> tuple[Callable[..., None], ...]:
    """The commands of this module."""
    return backup, restore, export, import_, reembed, calibrate, compact, migrate


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


def export(
    target: Annotated[Path, typer.Argument(metavar="FILE.tar", help="The file to make.")],
    gallery: Gallery = None,
) -> None:
    """Write all crops, as pictures and a list of their labels, into a tar; also while the service runs.

    For other programs, and for a gallery elsewhere: `resight import` reads it. Embeddings are not in it.
    """
    with _job("exporting", "pictures") as progress:
        from service.jobs.export_crops import export_crops, export_from_milvus

        chosen = _settings(gallery=gallery)
        if chosen.milvus_address is None:
            done = export_crops(chosen.gallery_folder, target, progress)
        else:
            from service.galleries import open_existing

            with open_existing(chosen) as opened:
                done = export_from_milvus(opened.crops, target, progress)
    with printing():
        bare = f", {done.without_picture:,} of them without picture," if done.without_picture else ""
        typer.echo(f"{done.crops:,} crops{bare} exported to {target}")


def import_(
    source: Annotated[Path, typer.Argument(metavar="FILE.tar", help="What `resight export` made.")],
    model: ModelFile = None,
    gallery: Gallery = None,
    store_images: Annotated[
        str | None, typer.Option(help="What is kept: none, thumbnail or original. [default: thumbnail]")
    ] = None,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Enrol what `resight export` wrote, under the same ids and with the same times; stop the service first.

    Crops that the gallery has already stay as they are, so the same command goes on where it stopped. Exit code: 0
    all well, 1 some crops were left out, 2 nothing could be done.
    """
    with _job("importing", "crops") as progress:
        from service.galleries import open_audit, open_gallery
        from service.jobs.import_crops import import_crops

        chosen = _settings(model=model, gallery=gallery, store_images=store_images, device=device, threads=threads)
        engine = _engine(chosen)
        to_fill = open_gallery(chosen, engine.info, searched=False)
        with to_fill as opened, open_audit(chosen, opened) as audit:
            done = import_crops(source, opened, audit, engine, chosen.kept_images, progress)
    _name(done.left_out)
    with printing():
        left_out = len(done.left_out)
        typer.echo(f"{done.created:,} crops imported, {done.known:,} there already, {left_out:,} left out")
    if done.left_out:
        raise typer.Exit(SOME_FAILED)


def reembed(
    model: ModelFile = None,
    gallery: Gallery = None,
    device: Device = None,
    threads: Threads = None,
    drop_missing: Annotated[
        bool, typer.Option("--drop-missing", help="Erase the crops that have no picture to embed.")
    ] = False,
) -> None:
    """Embed the gallery's stored pictures with another model; stop the service first.

    The old embeddings stay until all new ones are there: stopped or killed, the gallery is still that of the old
    model, and the same command goes on.
    """
    with _job("embedding", "crops") as progress:
        from service.jobs.reembed import PicturesMissing
        from service.jobs.reembed import reembed as embed_again

        chosen = _settings(model=model, gallery=gallery, device=device, threads=threads)
        engine = _engine(chosen)
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


def calibrate(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PATH", help="Labelled crops, as for `resight enrol`. [default: the gallery's own]"),
    ] = None,
    false_match_rate: Annotated[
        float | None,
        typer.Option(help="Of pairs of strangers. [default: 0.01 / people that a query meets]", min=1e-9, max=0.5),
    ] = None,
    model: ModelFile = None,
    gallery: Gallery = None,
    device: Device = None,
    threads: Threads = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Measure the distance of a match on labelled crops, also while the service runs.

    It is the distance under which so few pairs of different people lie; set it as RESIGHT_MATCH_DISTANCE. The
    gallery's labels are as good as whoever gave them: those that came from matches measure themselves.
    """
    with _job("embedding", "crops") as progress:
        from service.jobs.calibrate import calibrate as measure
        from service.jobs.calibrate import gallery_sample, picture_sample

        chosen = _settings(model=model, gallery=gallery, device=device, threads=threads)
        if paths:
            sample = picture_sample(labelled_pictures(paths), _engine(chosen), progress)
        else:
            sample = gallery_sample(chosen.gallery_folder)
        found = measure(sample, false_match_rate)
    with printing():
        if as_json:
            typer.echo(json.dumps(asdict(found)))
            return
        for line in calibration_lines(found):
            typer.echo(line)


def compact(gallery: Gallery = None) -> None:
    """Give the disk back what erased crops and old embeddings took; stop the service first."""
    with _job("compacting", "crops"):
        from service.jobs.compact import compact as shrink

        done = shrink(_settings(gallery=gallery).gallery_folder)
    with printing():
        typer.echo(f"{done.before / 1e6:,.1f} MB before, {done.after / 1e6:,.1f} MB now")


def _engine(chosen: Settings) -> OnnxEngine:
    from service.inference.engine import load_engine
    from service.inference.model import read_model

    return load_engine(
        read_model(chosen.model), chosen.device, chosen.effective_threads, chosen.max_batch, chosen.cache_folder
    )


def _name(lost: Sequence[Lost | NotImported]) -> None:
    for one in lost[:NAMED_CROPS]:
        say(f"{one.crop_id}: {one.reason}")
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


def _settings(unset: Sequence[str] = (), **options: Any) -> Settings:
    """Settings with these options where they are not None; those named in `unset` are not taken from variables."""
    from pydantic import ValidationError

    from service.settings import Settings

    try:
        given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        return Settings(**{**dict.fromkeys(unset), **given})
    except ValidationError as error:
        stop(refusals(error))
