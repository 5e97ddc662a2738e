"""`resight backup`, `restore`, `export` and `compact`: the gallery as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.items import count
from service.cli.jobrunning import Gallery, job, settings_of, tell
from service.cli.options import Json, a_path

if TYPE_CHECKING:
    from service.jobs.manifest import Manifest


def backup(
    target: Annotated[Path, typer.Argument(metavar="FOLDER", parser=a_path, help="The folder to make.")],
    gallery: Gallery = None,
    as_json: Json = False,
) -> None:
    """Copy the gallery, also while the service runs.

    FOLDER appears when all of it is written and checked. It holds pictures of people: keep it as safe as the
    gallery, and no longer than crops may be kept.
    """
    with job("backing up", "pages") as progress:
        from service.jobs.backup import back_up

        made = back_up(settings_of(gallery=gallery).gallery_folder, target, progress)
    tell(as_json, made, f"{_contents(made)} backed up to {target}")


def restore(
    backup: Annotated[Path, typer.Argument(metavar="FOLDER", parser=a_path, help="What `resight backup` made.")],
    gallery: Gallery = None,
    as_json: Json = False,
) -> None:
    """Put a backup into an empty folder, every byte of it checked.

    No gallery is ever replaced: to go back to a backup, stop the service and move its data folder away first.
    """
    with job("restoring", "bytes") as progress:
        from service.jobs.restore import restore as put_back

        folder = settings_of(gallery=gallery).gallery_folder
        found = put_back(backup, folder, progress)
    lines = [f"{_contents(found)} of {found.created} restored to {folder}"]
    if found.model is not None:
        lines.append(f"serve it with the model {found.model.name} (sha256 {found.model.sha256[:12]}…)")
    tell(as_json, found, *lines)


def export(
    target: Annotated[Path, typer.Argument(metavar="FILE.tar", parser=a_path, help="The file to make.")],
    gallery: Gallery = None,
    as_json: Json = False,
) -> None:
    """Write all crops, as pictures and a list of their labels, into a tar; also while the service runs.

    For other programs, and for a gallery elsewhere: `resight import` reads it. Embeddings are not in it.
    """
    with job("exporting", "pictures") as progress:
        from service.jobs.export_crops import export_crops, export_from_milvus

        chosen = settings_of(gallery=gallery)
        if chosen.milvus_address is None:
            done = export_crops(chosen.gallery_folder, target, progress)
        else:
            from service.galleries import open_existing

            with open_existing(chosen) as opened:
                done = export_from_milvus(opened.crops, target, progress)
    bare = f", {done.without_picture:,} of them without picture," if done.without_picture else ""
    tell(as_json, done, f"{count(done.crops, 'crop')}{bare} exported to {target}")


def compact(gallery: Gallery = None, as_json: Json = False) -> None:
    """Give the disk back what erased crops and old embeddings took; stop the service first."""
    with job("compacting", "crops"):
        from service.jobs.compact import compact as shrink

        done = shrink(settings_of(gallery=gallery).gallery_folder)
    tell(as_json, done, f"{done.before / 1e6:,.1f} MB before, {done.after / 1e6:,.1f} MB now")


def _contents(manifest: Manifest) -> str:
    counts = manifest.counts
    identities = count(counts.identities, "identity", "identities")
    return f"{count(counts.crops, 'crop')} of {identities}, {count(counts.pictures, 'picture')},"
