"""Reading a gallery beside whoever owns it: no lock taken, nothing written, one state for as long as it takes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from service.gallery.database import BUSY_SECONDS, DATABASE_NAME, check_ours, translated_errors
from service.gallery.records import GalleryUnavailable
from service.gallery.schema import MIGRATIONS


@contextmanager
def reading_beside(folder: Path) -> Iterator[sqlite3.Connection]:
    """A read-only connection to the gallery in `folder`, which a service may own and go on writing meanwhile.

    All that is read in the block is the state of one moment. As long as it lasts, the owner's write-ahead log
    grows with what is written, and keeps what is erased.

    Raises GalleryUnavailable when there is no gallery, GalleryTooNew, GalleryDamaged; SQLite's own errors come
    out translated.
    """
    path = folder / DATABASE_NAME
    if not path.is_file():
        raise GalleryUnavailable(f"There is no gallery in {folder}; name the folder that holds {DATABASE_NAME}.")
    with translated_errors(path):
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
            check_ours(connection, path, len(MIGRATIONS))
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # the first read chooses the moment
            yield connection


def require_newest_schema(connection: sqlite3.Connection, folder: Path) -> None:
    """For those that read tables: an older schema lacks some. Raises GalleryUnavailable."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version < len(MIGRATIONS):
        raise GalleryUnavailable(
            f"The gallery in {folder} was written by an earlier release (schema version {version}); start the "
            "service on it once to bring it up to date."
        )
