"""One SQLite file and the discipline around it: a locked folder, one writer thread, pooled readers.

A write is acknowledged after its commit. Writes that wait together share one commit (and so one fsync),
each in a savepoint of its own, so that one that fails takes no other with it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import queue
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any, TypeVar

from service.gallery.records import GalleryDamaged, GalleryLocked, GalleryTooNew, GalleryUnavailable

Result = TypeVar("Result")
Migration = Sequence[str]

DATABASE_NAME = "gallery.db"
LOCK_NAME = "lock"
APPLICATION_ID = 0x52534754  # "RSGT": tells our file from any other SQLite database
GROUP_LIMIT = 256  # writes that share one commit
BUSY_SECONDS = 2.0

_log = logging.getLogger(__name__)


@dataclass
class _Write:
    transaction: Callable[[sqlite3.Connection], Any]
    publish: Callable[[Any], None]
    erases: bool
    done: Future[Any] = field(default_factory=Future)


class Database:
    """The gallery's SQLite file. Thread-safe; make it with `open`, give it back with `close`."""

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: FileIO) -> None:
        self.path = path
        self._writer_connection = connection
        self._lock_file = lock
        self._writes: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._idle_readers: deque[sqlite3.Connection] = deque()
        self._closed = False
        self._close_lock = threading.Lock()
        self._truncation_due = False
        self._writer = threading.Thread(target=self._write_loop, name="gallery-writer", daemon=True)
        self._writer.start()

    @classmethod
    def open(cls, folder: Path, migrations: Sequence[Migration]) -> Database:
        """Opens, or makes, the database in `folder` and brings its schema up to date.

        Raises:
            GalleryLocked: another process (or another Database here) owns the folder.
            GalleryTooNew: the schema is newer than `migrations`.
            GalleryDamaged: the file is no database of ours, or not a whole one.
            GalleryUnavailable: the folder cannot be used.
        """
        path = folder / DATABASE_NAME
        lock = _lock_folder(folder)
        try:
            with translated_errors(path):
                if not path.exists():
                    _create(path, migrations)
                connection = _connect(path)
                try:
                    _check_ours(connection, path, len(migrations))
                    _prepare_writer(connection)
                    _check_whole(connection, path)
                    _migrate(connection, migrations)
                except BaseException:
                    connection.close()
                    raise
        except BaseException:
            lock.close()
            raise
        return cls(path, connection, lock)

    @property
    def alive(self) -> bool:
        """Whether writes are taken."""
        return self._writer.is_alive() and not self._closed

    def write(
        self,
        transaction: Callable[[sqlite3.Connection], Result],
        publish: Callable[[Result], None] = lambda _: None,
        *,
        erases: bool = False,
    ) -> Result:
        """Runs `transaction` on the writer thread and returns its result once it is committed.

        `publish(result)` runs after the commit and before the acknowledgement, also on the writer thread: so
        caches see the writes in the order of their commits. With `erases` the write-ahead log is emptied
        too, because it would otherwise keep the deleted bytes.

        Raises: what `transaction` raises (then nothing of it is stored), GalleryUnavailable, GalleryDamaged.
        """
        write = _Write(transaction, publish, erases)
        with self._close_lock:
            if not self.alive:
                raise GalleryUnavailable("The gallery is closed.")
            self._writes.put(write)
        with translated_errors(self.path):
            result: Result = write.done.result()
        return result

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A read-only connection for the time of the block; SQLite's errors come out translated."""
        if self._closed:
            raise GalleryUnavailable("The gallery is closed.")
        with translated_errors(self.path):
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

    def close(self) -> None:
        """Finishes the writes under way, folds the log into the file and frees the folder. Idempotent."""
        with self._close_lock:
            if self._closed:
                return
            self._closed = True
            self._writes.put(None)
        self._writer.join()
        self._close_idle_readers()
        self._writer_connection.close()
        self._lock_file.close()

    def _close_idle_readers(self) -> None:
        with suppress(IndexError):
            while True:
                self._idle_readers.pop().close()

    def _write_loop(self) -> None:
        last = False
        while not last and (first := self._writes.get()) is not None:
            group, last = self._gather(first)
            committed = self._commit(group)
            for write, result in committed:
                _publish(write, result)
            if self._truncation_due or any(write.erases for write, _ in committed):
                self._truncate_log()
            for write, result in committed:
                if not write.done.done():
                    write.done.set_result(result)

    def _gather(self, first: _Write) -> tuple[list[_Write], bool]:
        """The writes that wait, up to the limit, and whether the queue was closed behind them."""
        group = [first]
        with suppress(queue.Empty):
            while len(group) < GROUP_LIMIT:
                write = self._writes.get_nowait()
                if write is None:
                    return group, True
                group.append(write)
        return group, False

    def _commit(self, group: list[_Write]) -> list[tuple[_Write, Any]]:
        """Runs the group in one transaction; returns the writes that are now stored, fails the others."""
        connection = self._writer_connection
        results = []
        try:
            connection.execute("BEGIN IMMEDIATE")
            for write in group:
                with _savepoint(connection, write):
                    results.append((write, write.transaction(connection)))
            connection.execute("COMMIT")
        except Exception as error:
            with suppress(sqlite3.Error):  # whatever the disk does, the callers get their answer
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            for write in group:
                if not write.done.done():
                    write.done.set_exception(error)
            return []
        return results

    def _truncate_log(self) -> None:
        """Empties the write-ahead log; where a reader still needs it, the next write tries again."""
        try:
            busy, _, _ = self._writer_connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error:
            _log.exception("the write-ahead log could not be emptied after a deletion")
            busy = 1
        self._truncation_due = bool(busy)


@contextmanager
def _savepoint(connection: sqlite3.Connection, write: _Write) -> Iterator[None]:
    """Undoes a write that raises and fails it alone, unless SQLite gave up the whole transaction."""
    connection.execute("SAVEPOINT one")
    try:
        yield
    except Exception as error:
        if not connection.in_transaction:  # disk full, I/O error: SQLite has rolled back everything
            raise
        connection.execute("ROLLBACK TO one")
        write.done.set_exception(error)
    connection.execute("RELEASE one")


def _publish(write: _Write, result: Any) -> None:
    try:
        write.publish(result)
    except Exception as error:
        _log.exception("a stored change could not be published to the index; a restart will show it")
        write.done.set_exception(error)


def _lock_folder(folder: Path) -> FileIO:
    """Takes the folder for this process; the lock goes with the process, even if that is killed."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = FileIO(folder / LOCK_NAME, "w")
    except OSError as error:
        raise GalleryUnavailable(f"The data folder {folder} cannot be used: {error}.") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise GalleryLocked(
            f"The data folder {folder} is in use by another process; stop that one or choose another folder."
        ) from error
    return file


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
        _migrate(connection, migrations)
    finally:
        connection.close()
    unfinished.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _check_ours(connection: sqlite3.Connection, path: Path, newest: int) -> None:
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
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    expected = pages * connection.execute("PRAGMA page_size").fetchone()[0]
    if path.stat().st_size < expected:
        raise GalleryDamaged(f"The database {path} is damaged (its end is missing); restore a backup.")


def _prepare_writer(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("PRAGMA foreign_keys = ON")


def _migrate(connection: sqlite3.Connection, migrations: Sequence[Migration]) -> None:
    """Applies what the file lacks, each version in a transaction of its own."""
    present = connection.execute("PRAGMA user_version").fetchone()[0]
    for version, statements in enumerate(migrations[present:], start=present + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in statements:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {version}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


@contextmanager
def translated_errors(path: Path) -> Iterator[None]:
    """Turns what SQLite says about the file into a GalleryError; errors of ours in using it pass through."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError):
        raise
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise GalleryDamaged(f"The database {path} is damaged ({error}); restore a backup.") from error
        raise GalleryUnavailable(f"The database {path} cannot be used now: {error}.") from error
