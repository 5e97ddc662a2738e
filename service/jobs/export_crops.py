"""`resight export`: every crop with its picture and labels in one tar, that people and other programs can read."""

from __future__ import annotations

import io
import os
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from service.gallery.readonly import reading_beside, require_newest_schema
from service.gallery.rows import CROP_COLUMNS, crop_of
from service.jobs.archive import MANIFEST_NAME, ArchiveHead, archived
from service.jobs.job import JobError, Progress, unheard

TOLD_EVERY = 100  # crops


@dataclass(frozen=True)
class Exported:
    """How many crops the archive has, and how many of them without a picture, for none was stored."""

    crops: int
    without_picture: int


def export_crops(folder: Path, target: Path, progress: Progress = unheard) -> Exported:
    """Writes the gallery in `folder` to the new file `target`, also while a service owns the folder.

    It is the state of one moment; no lock is taken and nothing is written into `folder`. `target` appears when all
    of it is on the disk. Progress is told in pictures.

    Raises JobError when `target` cannot be made, and what `reading_beside` raises.
    """
    if target.exists():
        raise JobError(f"{target} exists already, and an export never replaces anything; choose another name.")
    with reading_beside(folder) as gallery, _unfinished(target) as file:
        require_newest_schema(gallery, folder)
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
            exported = _add_manifest(gallery, archive, target.parent)
            _add_pictures(gallery, archive, exported.crops - exported.without_picture, progress)
    return exported


def _add_manifest(gallery: sqlite3.Connection, archive: tarfile.TarFile, scratch: Path) -> Exported:
    """It is as long as the gallery is large, and a tar wants to know its length first: so it is a file for a while."""
    (crops,) = gallery.execute("SELECT count(*) FROM crops").fetchone()
    bare = 0
    query = f"SELECT {CROP_COLUMNS}, row IN (SELECT row FROM pictures) FROM crops ORDER BY row"
    with tempfile.TemporaryFile(dir=scratch) as manifest:
        manifest.write(ArchiveHead(format="resight-export/1", crops=crops).model_dump_json().encode() + b"\n")
        for record in gallery.execute(query):
            has_picture = bool(record[-1])
            bare += not has_picture
            manifest.write(archived(crop_of(record), has_picture).model_dump_json(exclude_none=True).encode() + b"\n")
        size = manifest.tell()
        manifest.seek(0)
        _add(archive, MANIFEST_NAME, size, manifest)
    return Exported(crops, bare)


def _add_pictures(gallery: sqlite3.Connection, archive: tarfile.TarFile, total: int, progress: Progress) -> None:
    query = "SELECT crop_id, jpeg FROM crops JOIN pictures USING (row) ORDER BY row"
    for done, (crop_id, jpeg) in enumerate(gallery.execute(query), 1):
        _add(archive, f"crops/{crop_id}.jpg", len(jpeg), io.BytesIO(jpeg))
        if done % TOLD_EVERY == 0 or done == total:
            progress(done, total)


def _add(archive: tarfile.TarFile, name: str, size: int, content: IO[bytes]) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o600
    archive.addfile(member, content)


@contextmanager
def _unfinished(target: Path) -> Iterator[IO[bytes]]:
    """A file beside `target` that takes its name when the block ends well, and is gone otherwise."""
    path: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=target.parent, prefix=f"{target.name}.", suffix=".unfinished", delete=False
        ) as file:
            path = Path(file.name)
            yield file
            file.flush()
            os.fsync(file.fileno())
        path.rename(target)
    except OSError as error:
        raise JobError(f"The export cannot be written to {target}: {error.strerror}.") from error
    finally:
        if path is not None:
            path.unlink(missing_ok=True)
