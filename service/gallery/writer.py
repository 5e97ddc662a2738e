"""The one thread that writes: group commit, publishing, erased bytes out of the log, and an end that nobody misses.

Writes that wait together share one commit (and so one fsync), each in a savepoint of its own, so that one that
fails takes no other with it.
"""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from service.gallery.records import GalleryError, GalleryUnavailable

GROUP_LIMIT = 256  # writes that share one commit
TRUNCATION_RETRY_SECONDS = 1.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Write:
    """A transaction to run; `publish` gets its result after the commit, `done` after that."""

    transaction: Callable[[sqlite3.Connection], Any]
    publish: Callable[[Any], None]
    erases: bool
    done: Future[Any] = field(default_factory=Future)


class Writer:
    """Owns the writing connection (in autocommit) while its thread runs. Thread-safe.

    `require_in_place` is called after every commit and raises GalleryUnavailable when it went into a file that
    nobody will find again: then it is not acknowledged. `remove_copies` is called before a commit that erases
    something, which fails if that raises.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        require_in_place: Callable[[], None],
        remove_copies: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._require_in_place = require_in_place
        self._remove_copies = remove_copies
        self._waiting: queue.SimpleQueue[Write | None] = queue.SimpleQueue()
        self._in_hand: list[Write] = []
        self._trouble: str | None = None
        self._submitting = threading.Lock()
        self._truncation_due = False
        self.unpublished = 0  # writes that are committed and of which the index does not know yet
        self._thread = threading.Thread(target=self._supervise, name="gallery-writer", daemon=True)
        self._thread.start()

    @property
    def trouble(self) -> str | None:
        """Why no write is taken, None while they are."""
        return self._trouble

    @property
    def log_keeps_erased(self) -> bool:
        """Whether the write-ahead log still has bytes of erased rows, because a reader holds it."""
        return self._truncation_due

    def submit(self, write: Write) -> None:
        """Puts it in the queue; its `done` is sure to be settled. Raises GalleryUnavailable."""
        with self._submitting:
            if self._trouble is not None:
                raise self._refusal()
            self._waiting.put(write)

    def close(self) -> None:
        """Finishes the writes that wait, and the thread. Idempotent."""
        with self._submitting:
            if self._trouble is None:
                self._trouble = "the gallery is closed"
                self._waiting.put(None)
        self._thread.join()

    def _refusal(self) -> GalleryUnavailable:
        return GalleryUnavailable(f"Nothing can be written: {self._trouble}.")

    def _supervise(self) -> None:
        try:
            self._loop()
        except BaseException as error:  # whatever ends this thread, nobody may wait for it for ever
            _log.critical("the gallery's writer died", exc_info=error)
            with self._submitting:
                if isinstance(error, GalleryError):
                    self._trouble = str(error).rstrip(".")
                else:
                    self._trouble = f"the gallery's writer died of {error!r}; restart the service"
            self._fail_all()

    def _fail_all(self) -> None:
        """Answers everybody who waits. What was committed but not published, a restart shows."""
        left: list[Write | None] = [*self._in_hand]
        self._in_hand.clear()
        with suppress(queue.Empty):
            while True:
                left.append(self._waiting.get_nowait())
        for write in left:
            if write is not None and not write.done.done():
                write.done.set_exception(self._refusal())

    def _loop(self) -> None:
        closing = False
        while not closing:
            closing = self._take()
            if self._in_hand:
                self._store()
                self._in_hand.clear()
            elif self._truncation_due:
                self._truncate_log(patient=False)

    def _take(self) -> bool:
        """Waits for writes and takes them in hand, up to the limit; True when the queue ends behind them.

        While the log is to be emptied it waits only until that is tried again.
        """
        try:
            write = self._waiting.get(timeout=TRUNCATION_RETRY_SECONDS if self._truncation_due else None)
            while write is not None:
                self._in_hand.append(write)
                if len(self._in_hand) == GROUP_LIMIT:
                    return False
                write = self._waiting.get_nowait()
        except queue.Empty:
            return False
        return True

    def _store(self) -> None:
        """Commits, publishes and acknowledges the writes in hand."""
        committed = self._commit()
        self._require_in_place()
        self.unpublished = len(committed)
        for write, result in committed:
            write.publish(result)  # what it raises ends the thread: the index would miss this write for good
            self.unpublished -= 1
        erased = any(write.erases for write, _ in committed)
        if erased or self._truncation_due:
            self._truncate_log(patient=erased)
        for write, result in committed:
            write.done.set_result(result)

    def _commit(self) -> list[tuple[Write, Any]]:
        """Runs what is in hand in one transaction; returns the writes that are now stored, fails the others."""
        connection = self._connection
        results = []
        erased = False
        try:
            connection.execute("BEGIN IMMEDIATE")
            for write in self._in_hand:
                with _savepoint(connection, write):
                    before = connection.total_changes
                    results.append((write, write.transaction(connection)))
                    erased = erased or (write.erases and connection.total_changes > before)
            if erased:
                self._remove_copies()
            connection.execute("COMMIT")
        except BaseException as error:
            with suppress(sqlite3.Error):  # whatever the disk does, the callers get their answer
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            if not isinstance(error, Exception):
                raise
            for write in self._in_hand:
                if not write.done.done():
                    write.done.set_exception(error)
            return []
        return results

    def _truncate_log(self, *, patient: bool) -> None:
        """Empties the write-ahead log of erased bytes; where a reader still needs it, that is due again later.

        Patient, it waits for readers as long as the connection does; else not at all, for others' writes wait.
        """
        cause: object = "a reader needs it"
        try:
            emptied = _checkpoint(self._connection, patient)
        except sqlite3.Error as error:
            emptied, cause = False, error
        if not emptied and not self._truncation_due:
            _log.warning("the write-ahead log keeps bytes of deleted crops for now (%s); it is tried again", cause)
        if emptied and self._truncation_due:
            _log.info("the write-ahead log keeps no bytes of deleted crops any more")
        self._truncation_due = not emptied


def _checkpoint(connection: sqlite3.Connection, patient: bool) -> bool:
    """Moves the whole log into the file and empties it; False where a reader was in the way."""
    (patience,) = connection.execute("PRAGMA busy_timeout").fetchone()
    try:
        if not patient:
            connection.execute("PRAGMA busy_timeout = 0")
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        connection.execute(f"PRAGMA busy_timeout = {patience}")
    return not busy


@contextmanager
def _savepoint(connection: sqlite3.Connection, write: Write) -> Iterator[None]:
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
