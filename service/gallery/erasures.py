"""Erasing many crops at once, for good, with a receipt.

From the acknowledgement on, no answer, row or log holds what was erased. Receipts are not kept: they would say whom the
gallery was to forget.

SQLite's secure_delete overwrites what is deleted, but not the copies that it leaves behind in the unused part of a page
when it moves entries to another one. Those in the indexes, whose entries come and go in any order, go because an
erasure writes the indexes anew. What the tables may hold of a crop id or a former label goes with `resight compact`.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from service.gallery.changes import Changes, to_micros
from service.gallery.database import Database
from service.gallery.records import require_aware
from service.gallery.rows import IN_LIST, erase


@dataclass(frozen=True)
class Selection:
    """What is to be erased: an identity, some crops, or what a camera saw, with `before` only what it saw before then.

    A crop without `captured_at` is not before anything. Raises ValueError unless it is exactly one of the three.
    """

    identity: str | None = None
    crop_ids: frozenset[str] | None = None
    camera: str | None = None
    before: datetime | None = None

    def __post_init__(self) -> None:
        if [self.identity, self.crop_ids, self.camera].count(None) != 2:
            raise ValueError("give exactly one of identity, crop_ids and camera")
        if self.before is not None and self.camera is None:
            raise ValueError("before goes with camera only")
        require_aware("before", self.before)


@dataclass(frozen=True)
class Receipt:
    """What was erased, and when; `wal_truncated`: whether the database's log, too, has let go of it by now.

    Where that is False, a reader held it up; the log is emptied as soon as that lets go.
    """

    receipt_id: str
    erased_at: datetime
    asked: Selection
    crops: int
    wal_truncated: bool


class Erasures:
    """Erasure, over a gallery's database. Thread-safe; `publish` takes every change to the index."""

    def __init__(self, database: Database, publish: Callable[[Changes], None]) -> None:
        self._database = database
        self._publish = publish

    def erase(self, asked: Selection) -> Receipt:
        """Erases all selected crops, or, when it raises, none; none selected is no error, so it may be repeated.

        With an identity go the marks of other crops against it, which name it. Raises GalleryUnavailable.
        """

        def transaction(connection: sqlite3.Connection) -> Changes:
            where, values = _where(asked)
            rows = connection.execute(f"SELECT row FROM crops WHERE {where} ORDER BY row", values).fetchall()
            before = connection.total_changes
            if asked.identity is not None:
                connection.execute("DELETE FROM not_identity WHERE identity = ?", (asked.identity,))
            changes = erase(connection, [row for (row,) in rows])
            if connection.total_changes > before:  # for it takes as long as the gallery is large
                for table in ("crops", "not_identity"):
                    connection.execute(f"REINDEX {table}")
            return changes

        changes = self._database.write(transaction, self._publish, erases=True)
        return Receipt(
            receipt_id=str(uuid.uuid4()),
            erased_at=datetime.now(UTC),
            asked=asked,
            crops=len(changes.removed),
            wal_truncated=not self._database.log_keeps_erased,
        )


def _where(asked: Selection) -> tuple[str, tuple[object, ...]]:
    if asked.identity is not None:
        return "identity = ?", (asked.identity,)
    if asked.crop_ids is not None:
        return f"crop_id {IN_LIST}", (json.dumps(sorted(asked.crop_ids)),)
    if asked.before is None:
        return "camera = ?", (asked.camera,)
    return "camera = ? AND captured_at < ?", (asked.camera, to_micros(asked.before))
