"""Retention: crops that were enrolled too long ago are erased; so many at once that it may be a mistake are not.

A clock that jumps ahead makes every crop too old. So a purge of more than a fifth of the gallery waits until somebody
confirms it, and then covers only what was too old at that moment.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from service.gallery.audit import Act, Audit
from service.gallery.changes import Changes, from_micros, to_micros
from service.gallery.database import Database
from service.gallery.periodic import Periodic
from service.gallery.readonly import reading_beside
from service.gallery.records import GalleryUnavailable
from service.gallery.rows import erase

LARGEST_SHARE = 0.2  # of the gallery, that is erased without asking
ERASED_AT_ONCE = 1000  # others' writes wait no longer than for these
CONFIRMATION_NAME = "retention-confirmed"
RUN_SECONDS, CHECK_SECONDS = 3600.0, 60.0
ACTOR = "retention"

_log = logging.getLogger(__name__)


def utc_now() -> datetime:
    """What the clock says."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class PastRetention:
    """How many of a gallery's crops are too old, enrolled before `before`."""

    before: datetime
    old: int
    crops: int

    @property
    def too_many(self) -> bool:
        """Whether they are more than may go without asking."""
        return self.old > LARGEST_SHARE * self.crops


@dataclass(frozen=True)
class Purge:
    """What one run did: crops erased, and crops that are too old but wait for a confirmation."""

    erased: int
    waiting: int


class Retention:
    """Erases the crops of an open gallery that were enrolled more than `days` ago. Thread-safe.

    `publish` takes every change to the index. Each erasure stands in the audit log before it is done.
    """

    def __init__(
        self,
        database: Database,
        publish: Callable[[Changes], None],
        audit: Audit,
        days: int,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._publish = publish
        self._audit = audit
        self._days = days
        self._clock = clock
        self._waiting = 0

    @property
    def warning(self) -> str | None:
        """A sentence for whoever looks after the service, while a purge waits to be confirmed."""
        if not self._waiting:
            return None
        return (
            f"{self._waiting} crops are older than {self._days} days, more than a fifth of the gallery: they are kept "
            "until `resight maintain --confirm` says that the clock and RESIGHT_RETENTION_DAYS are right."
        )

    def run(self) -> Purge:
        """Erases what is too old and neither too much nor unconfirmed. Raises GalleryUnavailable."""
        confirmed = _confirmed(self._database.folder.path)
        limit = self._clock() - timedelta(days=self._days)
        with self._database.reading() as connection:
            found = PastRetention(limit, *_count(connection, to_micros(limit)))
        before = to_micros(limit)
        erased = self._erase(min(before, confirmed or 0) if found.too_many else before)
        if confirmed is not None:
            (self._database.folder.path / CONFIRMATION_NAME).unlink(missing_ok=True)
        self._waiting = max(0, found.old - erased)
        if erased:
            _log.info("crops past their retention were erased", extra={"crops": erased})
        if self.warning is not None:
            _log.warning(self.warning)
        return Purge(erased, self._waiting)

    def _erase(self, before: int) -> int:
        """Erases what was enrolled before then, some at a time."""
        erased = 0
        while crops := self._some(before):
            rows = [row for row, _ in crops]

            def transaction(connection: sqlite3.Connection, rows: list[int] = rows) -> Changes:
                there = [row for row in rows if _exists(connection, row)]
                return erase(connection, there)

            act = Act("expire", ACTOR, [crop_id for _, crop_id in crops], len(crops))
            changes = self._audit.perform(act, self._database.write, transaction, self._publish, erases=True)
            erased += len(changes.removed)
        return erased

    def _some(self, before: int) -> list[tuple[int, str]]:
        query = "SELECT row, crop_id FROM crops WHERE enrolled_at < ? ORDER BY row LIMIT ?"
        with self._database.reading() as connection:
            return connection.execute(query, (before, ERASED_AT_ONCE)).fetchall()


class RetentionThread:
    """Runs it once an hour, and soon after a purge was confirmed, until it is closed."""

    def __init__(self, retention: Retention, folder: Path) -> None:
        self._retention = retention
        self._folder = folder
        self._due_at = time.monotonic()
        self._periodic = Periodic("gallery-retention", CHECK_SECONDS, self._run_if_due)

    def close(self) -> None:
        """Waits for a run under way. Idempotent."""
        self._periodic.close()

    def _run_if_due(self) -> None:
        if time.monotonic() >= self._due_at or (self._folder / CONFIRMATION_NAME).exists():
            self._retention.run()
            self._due_at = time.monotonic() + RUN_SECONDS


def past_retention(folder: Path, days: int, clock: Callable[[], datetime] = utc_now) -> PastRetention:
    """Looks at a gallery that a service may own. Raises GalleryUnavailable, GalleryTooNew, GalleryDamaged."""
    before = clock() - timedelta(days=days)
    with reading_beside(folder) as connection:
        return PastRetention(before, *_count(connection, to_micros(before)))


def confirm_purge(folder: Path, seen: PastRetention) -> None:
    """Says that what was seen to be too old may go, and nothing younger; whoever serves the folder then erases it.

    Raises GalleryUnavailable.
    """
    unfinished = folder / f"{CONFIRMATION_NAME}.new"
    try:
        unfinished.write_text(str(to_micros(seen.before)))
        unfinished.replace(folder / CONFIRMATION_NAME)
    except OSError as error:
        raise GalleryUnavailable(f"The purge of {folder} cannot be confirmed: {error.strerror}.") from error


def _count(connection: sqlite3.Connection, before: int) -> tuple[int, int]:
    """How many crops were enrolled before then, and how many there are."""
    query = "SELECT count(*) FILTER (WHERE enrolled_at < ?), count(*) FROM crops"
    old, crops = connection.execute(query, (before,)).fetchone()
    return old, crops


def _confirmed(folder: Path) -> int | None:
    """Up to when purges are confirmed; None when nothing is, or nothing that can be read."""
    with suppress(OSError, ValueError, OverflowError):
        micros = int((folder / CONFIRMATION_NAME).read_text())
        from_micros(micros)
        return micros
    return None


def _exists(connection: sqlite3.Connection, row: int) -> bool:
    found: int = connection.execute("SELECT EXISTS (SELECT 1 FROM crops WHERE row = ?)", (row,)).fetchone()[0]
    return bool(found)
