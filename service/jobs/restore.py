"""`resight restore`: a backup becomes a gallery again, in an empty folder only and all of it or nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from service.gallery.database import DATABASE_NAME
from service.gallery.folder import DataFolder
from service.gallery.records import GalleryTooNew
from service.gallery.schema import MIGRATIONS
from service.jobs.job import JobError, Progress, unheard
from service.jobs.manifest import File, Manifest, copied, read_manifest

SCRATCH_NAME = "restore.unfinished"
PASSED_OVER = frozenset({SCRATCH_NAME, "lost+found"})  # what a killed restore and a file system leave


def restore(backup: Path, folder: Path, progress: Progress = unheard) -> Manifest:
    """Puts the backup in the folder `backup` into `folder`, which is empty or does not exist.

    Every byte is compared with the manifest before the gallery appears under its name, as the last step; a
    restore that was killed leaves no gallery, and the next one starts again. The folder is locked meanwhile.
    Progress is told in bytes.

    Raises JobError for a backup that is not whole and for a folder that is not empty, GalleryTooNew,
    GalleryLocked, GalleryUnavailable.
    """
    manifest = read_manifest(backup)
    if manifest.schema_version > len(MIGRATIONS):
        raise GalleryTooNew(
            f"{backup} has schema version {manifest.schema_version}, and this release of Resight knows none above "
            f"{len(MIGRATIONS)}; use release {manifest.release}, which wrote it, or a later one."
        )
    taken = DataFolder.take(folder)
    try:
        _require_empty(folder)
        _bring_in(backup / DATABASE_NAME, folder, manifest.database, progress)
        taken.sync()
    except OSError as error:
        raise JobError(f"The gallery cannot be restored to {folder}: {error.strerror}.") from error
    finally:
        taken.close()
    return manifest


def _require_empty(folder: Path) -> None:
    present = sorted({path.name for path in folder.iterdir()} - PASSED_OVER)
    if present:
        raise JobError(
            f"{folder} is not empty (it has {', '.join(present[:3])}), and a restore never replaces anything; "
            "choose another folder."
        )


def _bring_in(source: Path, folder: Path, expected: File, progress: Progress) -> None:
    scratch = folder / SCRATCH_NAME
    try:
        with _opened(source) as reading, open(scratch, "wb", opener=_for_its_owner) as writing:
            found = copied(reading, writing, _summing(progress, expected.bytes))
            writing.flush()
            os.fsync(writing.fileno())
        if found != expected:
            raise JobError(f"The backup is damaged: {source} is not what was written. Use another backup.")
        scratch.rename(folder / DATABASE_NAME)
    finally:
        scratch.unlink(missing_ok=True)


def _opened(source: Path) -> BinaryIO:
    try:
        return source.open("rb")
    except OSError as error:
        raise JobError(f"The backup is not whole: {source} cannot be read ({error.strerror}). Use another.") from error


def _for_its_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _summing(progress: Progress, total: int) -> Callable[[int], None]:
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total)

    return advance
