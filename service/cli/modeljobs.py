"""`resight import`, `reembed` and `calibrate`: what needs the model and a whole gallery."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.cli.calibration import calibration_lines, labelled_pictures
from service.cli.items import count
from service.cli.jobrunning import Device, Gallery, ModelFile, Threads, engine_of, job, name_crops, settings_of, tell
from service.cli.messages import SOME_FAILED
from service.cli.options import Json, a_path


def import_(
    source: Annotated[Path, typer.Argument(metavar="FILE.tar", parser=a_path, help="What `resight export` made.")],
    model: ModelFile = None,
    gallery: Gallery = None,
    store_images: Annotated[
        str | None, typer.Option(help="What is kept: none, thumbnail or original. [default: thumbnail]")
    ] = None,
    device: Device = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Enrol what `resight export` wrote, under the same ids and with the same times; stop the service first.

    Crops that the gallery has already stay as they are, so the same command goes on where it stopped. Exit code: 0
    all well, 1 some crops were left out, 2 nothing could be done.
    """
    with job("importing", "crops") as progress:
        from service.galleries import open_audit, open_gallery
        from service.jobs.import_crops import import_crops

        chosen = settings_of(model=model, gallery=gallery, store_images=store_images, device=device, threads=threads)
        engine = engine_of(chosen)
        to_fill = open_gallery(chosen, engine.info, searched=False)
        with to_fill as opened, open_audit(chosen, opened) as audit:
            done = import_crops(source, opened, audit, engine, chosen.kept_images, progress)
    name_crops(done.left_out)
    left_out = f"{len(done.left_out):,} left out"
    tell(as_json, done, f"{count(done.created, 'crop')} imported, {done.known:,} there already, {left_out}")
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
    as_json: Json = False,
) -> None:
    """Embed the gallery's stored pictures with another model; stop the service first.

    The old embeddings stay until all new ones are there: stopped or killed, the gallery is still that of the old
    model, and the same command goes on.
    """
    with job("embedding", "crops") as progress:
        from service.jobs.reembed import PicturesMissing
        from service.jobs.reembed import reembed as embed_again

        chosen = settings_of(model=model, gallery=gallery, device=device, threads=threads)
        engine = engine_of(chosen)
        try:
            done = embed_again(chosen.gallery_folder, engine, drop_missing=drop_missing, progress=progress)
        except PicturesMissing as missing:
            name_crops(missing.lost)
            raise
    name_crops(done.dropped)
    earlier = f", {done.found:,} had been before" if done.found else ""
    said = f"{count(done.embedded, 'crop')} embedded by {engine.info.name}{earlier}, {len(done.dropped):,} erased"
    tell(
        as_json,
        done,
        said if done.needed else f"the gallery belongs to {engine.info.name} already: nothing to do",
    )


def calibrate(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="PATH", parser=a_path, help="Labelled crops, as for `resight enrol`. [default: the gallery's own]"
        ),
    ] = None,
    false_match_rate: Annotated[
        float | None,
        typer.Option(help="Of pairs of strangers. [default: 0.01 / people that a query meets]", min=1e-9, max=0.5),
    ] = None,
    model: ModelFile = None,
    gallery: Gallery = None,
    device: Device = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Measure the distance of a match on labelled crops, also while the service runs.

    It is the distance under which so few pairs of different people lie; set it as RESIGHT_MATCH_DISTANCE. The
    gallery's labels are as good as whoever gave them: those that came from matches measure themselves. Without PATH
    the gallery's embeddings are measured as they are: another --model than theirs needs crops to embed.
    """
    with job("embedding", "crops") as progress:
        from service.inference.model import read_model
        from service.jobs.calibrate import calibrate as measure
        from service.jobs.calibrate import gallery_sample, picture_sample

        chosen = settings_of(model=model, gallery=gallery, device=device, threads=threads)
        if paths:
            sample = picture_sample(labelled_pictures(paths), engine_of(chosen), progress)
        else:
            sample = gallery_sample(chosen.gallery_folder, None if model is None else read_model(model).info)
        found = measure(sample, false_match_rate)
    tell(as_json, found, *calibration_lines(found))
