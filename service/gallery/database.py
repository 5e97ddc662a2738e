"""One SQLite file and the discipline around it: a locked folder, one writer thread, pooled readers.

A write is acknowledged after its commit.
"""

from __future__ import annotations

import errno
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from service.gallery.folder import DataFolder
from service.gallery.records import GalleryDamaged, GalleryFull, GalleryTooNew, GalleryUnavailable
from service.gallery.writer import Write, Writer

Result = TypeVar("Result")
Migration = Sequence[str]

DATABASE_NAME = "gallery.db"
APPLICATION_ID = 0x52534754  # "RSGT": tells our file from any other SQLite database
BUSY_SECONDS = 2.0
WORKING_SUFFIXES = ("-wal", "-shm")  # SQLite's own files beside an open database


class Database:
    """The gallery's SQLite file. Thread-safe; make it with `open`, give it back with `close`."""

    def __init__(self, path: Path, connection: sqlite3.Connection, folder: DataFolder) -> None:
        self.path = path
        self.folder = folder
        self._writer_connection = connection
        self._writer = Writer(connection, self._require_in_place, folder.remove_copies)
        self._damage: str | None = None
        self._idle_readers: deque[sqlite3.Connection] = deque()
        self._closed = False
        self._close_lock = threading.Lock()

    @classmethod
    def open(cls, folder: Path, migrations: Sequence[Migration]) -> Database:
        """Opens, or makes, the database in `folder` and brings its schema up to date.

        Raises:
            GalleryLocked: another process (or another Database here) owns the folder.
            GalleryTooNew: the schema is newer than `migrations`.
            GalleryDamaged: the file is no database of ours, or not a whole one.
            GalleryUnavailable: the folder cannot be used.
        """
        taken = DataFolder.take(folder)
        path = folder / DATABASE_NAME
        try:
            with translated_errors(path):
                if not path.exists():
                    _create(path, migrations)
                    taken.sync()
            try:
                connection = _open_writer(path, migrations)
            except GalleryFull:
                if not taken.give_up_spare():
                    raise
                connection = _open_writer(path, migrations)
            taken.keep_spare()
            taken.watch(path.name, *(f"{path.name}{suffix}" for suffix in WORKING_SUFFIXES))
        except BaseException:
            taken.close()
            raise
        return cls(path, connection, taken)

    @property
    def unpublished(self) -> int:
        """Writes that are committed and of which the index does not know yet. Never blocks."""
        return self._writer.unpublished

    @property
    def trouble(self) -> str | None:
        """Why no write is taken, None while they are. Looks at the folder, and blocks no longer than that takes."""
        if self._closed:
            return self._writer.trouble
        return self._damage or self.folder.displacement or self._writer.trouble

    def _require_in_place(self) -> None:
        displacement = self.folder.displacement
        if displacement is not None:
            raise GalleryUnavailable(f"{displacement}.")

    @property
    def log_keeps_erased(self) -> bool:
        """Whether the write-ahead log still has bytes of erased rows, because a reader holds it."""
        return self._writer.log_keeps_erased

    def write(
        self,
        transaction: Callable[[sqlite3.Connection], Result],
        publish: Callable[[Result], None] = lambda _: None,
        *,
        erases: bool = False,
    ) -> Result:
        """Runs `transaction` on the writer thread and returns its result once it is committed.

        `publish(result)` runs after the commit and before the acknowledgement, also on the writer thread: so
        caches see the writes in the order of their commits. If it raises, no further write is taken. With
        `erases` nothing else in the folder keeps the deleted bytes either: where there are some, snapshots are
        removed before the commit; the write-ahead log is emptied before the acknowledgement, or as soon as the
        readers that need it let go.

        Raises: what `transaction` raises (then nothing of it is stored), GalleryUnavailable (also when the writer
        died over it: then only the file tells whether it is stored), GalleryDamaged.
        """
        if self._damage is not None:
            raise GalleryUnavailable(f"Nothing can be written: {self._damage}.")
        write = Write(transaction, publish, erases)
        self._writer.submit(write)
        with self._noticing_damage():
            result: Result = write.done.result()
        return result

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A read-only connection for the time of the block; SQLite's errors come out translated."""
        if self._closed:
            raise GalleryUnavailable("The gallery is closed.")
        with self._noticing_damage():
            try:
                connection = self._idle_readers.pop()
            except IndexError:
                connection = _connect(self.path)
                connection.execute("PRAGMA query_only = ON")
            try:
                yield connection
            finally:
                self._idle_readers.append(connection)
                if self._closed:
                    self._close_idle_readers()

    @contextmanager
    def _noticing_damage(self) -> Iterator[None]:
        """Translates errors; what shows that the file is damaged ends writing for good, lest it gets worse."""
        try:
            with translated_errors(self.path):
                yield
        except GalleryDamaged as error:
            if isinstance(error.__cause__, sqlite3.DatabaseError):
                self._damage = f"the database {self.path} is damaged; stop the service and restore a backup"
            raise

    def close(self) -> None:
        """Finishes the writes under way, folds the log into the file and frees the folder. Idempotent."""
        with self._close_lock:
            if self._closed:
                return
            self._closed = True
        self._writer.close()
        self._close_idle_readers()
        self._writer_connection.close()
        self.folder.keep_spare()
        self.folder.close()

    def _close_idle_readers(self) -> None:
        with suppress(IndexError):
            while True:
                self._idle_readers.pop().close()


def _open_writer(path: Path, migrations: Sequence[Migration]) -> sqlite3.Connection:
    with translated_errors(path):
        connection = _connect(path)
        try:
            check_ours(connection, path, len(migrations))
            _prepare_writer(connection)
            _check_whole(connection, path)
            _migrate(connection, path, migrations)
        except BaseException:
            connection.close()
            raise
        return connection


def _connect(path: Path) -> sqlite3.Connection:
    """A connection to an existing file, in autocommit: transactions are begun and ended by hand."""
    uri = f"{path.absolute().as_uri()}?mode=rw"
    return sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)


def _create(path: Path, migrations: Sequence[Migration]) -> None:
    """Makes the database under another name and renames it: a file of that name is always a whole one."""
    unfinished = path.with_suffix(".new")
    for leftover in path.parent.glob(f"{unfinished.name}*"):
        leftover.unlink()
    unfinished.touch(mode=0o600)
    connection = _connect(unfinished)
    try:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        _prepare_writer(connection)
        _migrate(connection, path, migrations)
    finally:
        connection.close()
    unfinished.replace(path)


def check_ours(connection: sqlite3.Connection, path: Path, newest: int) -> None:
    """Raises GalleryDamaged for any other database, GalleryTooNew for a schema version above `newest`."""
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise GalleryDamaged(f"{path} is not a Resight gallery; restore a backup or choose another folder.")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > newest:
        raise GalleryTooNew(
            f"{path} has schema version {version}, and this release of Resight knows none above {newest}; "
            "use the release that wrote it, or a later one."
        )


def _check_whole(connection: sqlite3.Connection, path: Path) -> None:
    """Finds a file that was cut off, also where nothing that is read at start would show it."""
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
            raise
        return  # what the log holds cannot be moved into the file, which is therefore allowed to be short
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    expected = pages * connection.execute("PRAGMA page_size").fetchone()[0]
    if path.stat().st_size < expected:
        raise GalleryDamaged(f"The database {path} is damaged (its end is missing); restore a backup.")


def _prepare_writer(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA secure_delete = ON")


def _migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[Migration]) -> None:
    """Applies what the file lacks, each version in a transaction of its own, then turns foreign keys on.

    Before, they would make a migration that rebuilds a table erase what refers to it; so each is checked at its end.
    """
    connection.execute("PRAGMA foreign_keys = OFF")  # has no effect inside a transaction
    present = connection.execute("PRAGMA user_version").fetchone()[0]
    for version, statements in enumerate(migrations[present:], start=present + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in statements:
                connection.execute(statement)
            if connection.execute("PRAGMA foreign_key_check").fetchone() is not None:
                raise GalleryDamaged(
                    f"{path} cannot be brought to schema version {version}: it would have records that refer to "
                    "missing ones. It is left as it was; restore a backup, or use the release that wrote it."
                )
            connection.execute(f"PRAGMA user_version = {version}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    connection.execute("PRAGMA foreign_keys = ON")


@contextmanager
def translated_errors(path: Path) -> Iterator[None]:
    """Turns what SQLite says about the file into a GalleryError; errors of ours in using it pass through."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError):
        raise
    except sqlite3.DatabaseError as error:
        extended = getattr(error, "sqlite_errorcode", 0)
        code = extended & 0xFF
        if str(error).startswith("Could not decode to UTF-8"):  # and shows the text
            raise _not_utf8(path) from error
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise GalleryDamaged(f"The database {path} is damaged ({error}); restore a backup.") from error
        if code == sqlite3.SQLITE_FULL or extended == sqlite3.SQLITE_IOERR_SHMSIZE:
            raise _full(path) from error
        raise GalleryUnavailable(f"The database {path} cannot be used now: {error}.") from error
    except UnicodeDecodeError as error:  # in what SQLite says about the schema
        raise _not_utf8(path) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _full(path) from error


def _not_utf8(path: Path) -> GalleryDamaged:
    return GalleryDamaged(f"The database {path} is damaged (a text is not UTF-8); restore a backup.")


def _full(path: Path) -> GalleryFull:
    return GalleryFull(f"The database {path} cannot grow: the disk is full; free space, then send it again.")
