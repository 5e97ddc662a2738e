"""`resight compact`: the database without the room that erased and replaced rows left in it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from service.gallery.database import DATABASE_NAME, check_ours, translated_errors
from service.gallery.folder import DataFolder
from service.gallery.records import GalleryFull, GalleryUnavailable
from service.gallery.schema import MIGRATIONS
from service.jobs.job import JobError


@dataclass(frozen=True)
class Compacted:
    """The database's size in bytes, before and after."""

    before: int
    after: int


def compact(folder: Path) -> Compacted:
    """Writes the database in `folder` anew, as small as it can be: all of it or, when that is cut short, none.

    Bytes of labels that were changed, which SQLite may leave in a page, go with it. For as long as it takes, the
    disk needs room for the gallery twice more, all of it in `folder`: no picture is written anywhere else.

    Raises JobError on a full disk, GalleryLocked as long as a service runs, GalleryUnavailable, GalleryDamaged,
    GalleryTooNew.
    """
    path = folder / DATABASE_NAME
    if not path.is_file():
        raise GalleryUnavailable(f"There is no gallery in {folder}; name the folder that holds {DATABASE_NAME}.")
    taken = DataFolder.take(folder)
    try:
        with translated_errors(path), closing(sqlite3.connect(path, isolation_level=None)) as connection:
            check_ours(connection, path, len(MIGRATIONS))
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            before = path.stat().st_size
            with _temporary_files_in(folder, connection):
                connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            after = path.stat().st_size
    except GalleryFull as error:
        raise JobError(f"The disk of {folder} is too full to compact the gallery, which is as it was.") from error
    finally:
        taken.close()
    return Compacted(before, after)


@contextmanager
def _temporary_files_in(folder: Path, connection: sqlite3.Connection) -> Iterator[None]:
    """SQLite writes its copy of the gallery, pictures included, into `folder`, and not into /var/tmp.

    A variable of the environment (SQLITE_TMPDIR) would come too late: SQLite has read it when Python imported it.
    """
    name = str(folder.absolute()).replace("'", "''")
    connection.execute(f"PRAGMA temp_store_directory = '{name}'")
    try:
        yield
    finally:
        connection.execute("PRAGMA temp_store_directory = ''")  # it is the whole process's
