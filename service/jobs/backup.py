"""`resight backup`: a whole, verified copy of a gallery, taken while the service goes on."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

from service.gallery.database import DATABASE_NAME
from service.gallery.readonly import reading_beside
from service.gallery.records import GalleryDamaged
from service.jobs.job import JobError, Progress, unheard
from service.jobs.manifest import MANIFEST_NAME, Counts, Manifest, Model, copied

STEP_PAGES = 1024  # 4 MiB: how often progress is told, and how soon Ctrl-C is heard


def back_up(folder: Path, target: Path, progress: Progress = unheard) -> Manifest:
    """Copies the gallery in `folder` to the new folder `target`; a service that owns it goes on writing.

    The copy is the state of one moment, by SQLite's online backup: it takes no lock and writes nothing into
    `folder`. `target` appears when all of it is on the disk and checked, and not before; what a killed backup
    left beside it, the next one to the same place removes. Progress is told in database pages.

    Raises JobError when `target` cannot be made, and what `reading_beside` raises.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise JobError(f"{target} exists already, and a backup never replaces anything; choose another name.")
    with reading_beside(folder) as gallery, _unfinished(target) as scratch:
        copy = scratch / DATABASE_NAME
        _copy(gallery, copy, progress)
        manifest = describe(copy)
        _write(scratch / MANIFEST_NAME, manifest.encoded())
        _sync(copy)
        _sync(scratch)
        scratch.rename(target)
        _sync(target.parent)
    return manifest


def describe(copy: Path) -> Manifest:
    """The manifest of the database at `copy`, which is checked from end to end. Raises GalleryDamaged."""
    with closing(sqlite3.connect(f"{copy.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        if connection.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
            raise GalleryDamaged(
                "The database is damaged, and so would be its backup; restore an earlier backup, or `resight export` "
                "what can still be read."
            )
        (schema_version,) = connection.execute("PRAGMA user_version").fetchone()
        model = connection.execute("SELECT model_name, model_sha256, dim FROM gallery").fetchone()
        crops, identities = connection.execute("SELECT count(*), count(DISTINCT identity) FROM crops").fetchone()
        (pictures,) = connection.execute("SELECT count(*) FROM pictures").fetchone()
    with copy.open("rb") as file:
        database = copied(file)
    return Manifest(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        release=version("resight"),
        schema_version=schema_version,
        model=None if model is None else Model(*model),
        counts=Counts(crops, identities, pictures),
        database=database,
    )


def _copy(gallery: sqlite3.Connection, copy: Path, progress: Progress) -> None:
    copy.touch(mode=0o600)
    with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
        gallery.backup(connection, pages=STEP_PAGES, progress=partial(_told, progress))
        connection.execute("PRAGMA journal_mode = DELETE")  # a backup is one file, and reading it makes no others


def _told(progress: Progress, _status: int, remaining: int, total: int) -> None:
    progress(total - remaining, total)


@contextmanager
def _unfinished(target: Path) -> Iterator[Path]:
    """An empty folder beside `target` for what is not whole yet, gone with whatever cuts the block short."""
    scratch = target.with_name(f"{target.name}.unfinished")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch.mkdir(mode=0o700, exist_ok=True)
        lock = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise JobError(f"The backup cannot be written to {target}: {error.strerror}.") from error
    try:
        _take(lock, target)
        _empty(scratch)
        try:
            yield scratch
        except OSError as error:
            raise JobError(f"The backup cannot be written to {target}: {error.strerror}.") from error
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise  # that is the gallery
            raise JobError(f"The backup cannot be written to {target}: {error}.") from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    finally:
        os.close(lock)


def _take(lock: int, target: Path) -> None:
    """One backup to a place at a time: a folder that nobody holds was left by a killed one."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise JobError(f"Another backup to {target} is under way; wait for it or choose another name.") from error


def _empty(scratch: Path) -> None:
    for left in scratch.iterdir():
        left.unlink()


def _write(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)
    _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
