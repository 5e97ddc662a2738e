"""What a person decides: who a crop shows and who not, and what an identity is called. And the list of identities.

A mark "not this identity" stands until a person takes it back. No crop has an identity that it is marked against:
naming a crop so, or merging two identities, takes the marks back that say the contrary.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from service.gallery.changes import Changes, Entry, from_micros
from service.gallery.cursors import decode_cursor, encode_cursor
from service.gallery.database import Database
from service.gallery.records import Crop, Labels, UnknownCrop, UnknownIdentity
from service.gallery.rows import CROP_COLUMNS, IN_LIST, crop_of, labels_of, marks_of, relabel

LISTED = "i"  # the list's name in its cursors

_SUMMARIES = """
    SELECT summary.identity, crops, cameras, earliest, latest, crop_id
    FROM (SELECT identity, count(*) AS crops, json_group_array(DISTINCT camera) AS cameras,
                 min(captured_at) AS earliest, max(captured_at) AS latest, min(row) AS first
          FROM crops WHERE {which} GROUP BY identity ORDER BY identity LIMIT ?) AS summary
    JOIN crops ON row = first ORDER BY summary.identity"""


@dataclass(frozen=True)
class Identity:
    """What the gallery knows of an identity: how many crops, and which cameras saw it between which times.

    `crop_id` is the crop that was enrolled first: a face for it. The times are None where no crop has one.
    """

    identity: str
    crops: int
    cameras: tuple[str, ...]
    first_captured_at: datetime | None
    last_captured_at: datetime | None
    crop_id: str


@dataclass(frozen=True)
class IdentityPage:
    """Identities by name; `next_cursor` is None on the last page."""

    identities: tuple[Identity, ...]
    next_cursor: str | None


@dataclass(frozen=True)
class Renamed:
    """What became of a renaming: how many crops moved to `identity`, and whether they met others there."""

    identity: str
    moved: int
    merged: bool


@dataclass(frozen=True)
class Correction:
    """What a person changes about a crop: the labels named in `given` become those of `labels`, None clears one.

    `not_identity` are marks to add; None takes back all that the crop has. Raises ValueError for an identity given
    and marked against at once.
    """

    labels: Labels = field(default_factory=Labels)
    given: frozenset[str] = frozenset()
    not_identity: frozenset[str] | None = frozenset()

    def __post_init__(self) -> None:
        if "identity" in self.given and self.labels.identity in (self.not_identity or ()):
            raise ValueError("identity and not_identity name the same one; give one of them")


class Identities:
    """Decisions and lists, over a gallery's database. Thread-safe; `publish` takes every change to the index."""

    def __init__(self, database: Database, publish: Callable[[Changes], None]) -> None:
        self._database = database
        self._publish = publish

    def page(self, limit: int, cursor: str | None, *, strong: bool = True) -> IdentityPage:
        """Up to `limit` >= 1 identities in the order of their names.

        Following `next_cursor` meets every identity that stays exactly once, whatever happens to others
        meanwhile. Raises InvalidCursor; ValueError for another limit.
        """
        if limit < 1:
            raise ValueError("limit must be at least 1: empty pages never come to an end")
        after = "" if cursor is None else decode_cursor(LISTED, cursor)
        found = self._summaries("identity > ?", after, limit + 1)
        listed = found[:limit]
        more = len(found) > limit
        return IdentityPage(listed, encode_cursor(LISTED, listed[-1].identity) if more else None)

    def get(self, identity: str, *, strong: bool = True) -> Identity:
        """Raises UnknownIdentity."""
        found = self._summaries("identity = ?", identity, 1)
        if not found:
            raise UnknownIdentity(identity)
        return found[0]

    def _summaries(self, which: str, name: str, limit: int) -> tuple[Identity, ...]:
        with self._database.reading() as connection:
            records = connection.execute(_SUMMARIES.format(which=which), (name, limit)).fetchall()
        return tuple(_summary(record) for record in records)

    def rename(self, identity: str, new: str) -> Renamed:
        """Gives all crops of `identity`, and the marks against it, the name `new`; onto a known name, it merges them.

        Raises UnknownIdentity, GalleryUnavailable.
        """

        def transaction(connection: sqlite3.Connection) -> tuple[Renamed, Changes]:
            crops = connection.execute(
                "SELECT row, crop_id, camera, captured_at FROM crops WHERE identity = ? ORDER BY row", (identity,)
            ).fetchall()
            if not crops:
                raise UnknownIdentity(identity)
            if new == identity:
                return Renamed(new, 0, False), Changes()
            merged = connection.execute("SELECT EXISTS (SELECT 1 FROM crops WHERE identity = ?)", (new,)).fetchone()[0]
            _rename(connection, identity, new)
            moved = [Entry(row, crop_id, new, camera, captured_at) for row, crop_id, camera, captured_at in crops]
            return Renamed(new, len(moved), bool(merged)), Changes(relabelled=moved)

        renamed, _ = self._database.write(transaction, lambda result: self._publish(result[1]))
        return renamed

    def correct(self, crop_id: str, correction: Correction) -> Crop:
        """Changes what is said about a crop, which is returned as it is then.

        A crop that is marked not to be who it is named loses its name; one that is named takes its mark against that
        name back. Raises UnknownCrop, GalleryUnavailable.
        """

        def transaction(connection: sqlite3.Connection) -> tuple[Crop, Changes]:
            before = _record(connection, crop_id)
            labels = corrected(labels_of(before), correction)
            _mark(connection, before[0], marks_of(before), labels.identity, correction.not_identity)
            entry = relabel(connection, before, labels)
            changes = Changes() if entry is None else Changes(relabelled=[entry])
            return crop_of(_record(connection, crop_id)), changes

        crop, _ = self._database.write(transaction, lambda result: self._publish(result[1]))
        return crop

    def ruled_out(self, crop_ids: Iterable[str], *, strong: bool = True) -> frozenset[str]:
        """The identities that at least one of these crops is marked not to be."""
        query = f"SELECT identity FROM not_identity WHERE row IN (SELECT row FROM crops WHERE crop_id {IN_LIST})"
        with self._database.reading() as connection:
            return frozenset(name for (name,) in connection.execute(query, (json.dumps(list(crop_ids)),)))


def _summary(record: Sequence[Any]) -> Identity:
    identity, crops, cameras, earliest, latest, crop_id = record
    return Identity(
        identity=identity,
        crops=crops,
        cameras=tuple(sorted(camera for camera in json.loads(cameras) if camera is not None)),
        first_captured_at=None if earliest is None else from_micros(earliest),
        last_captured_at=None if latest is None else from_micros(latest),
        crop_id=crop_id,
    )


def _rename(connection: sqlite3.Connection, identity: str, new: str) -> None:
    connection.execute(
        "INSERT INTO changes (row, op) SELECT row, 'relabel' FROM crops WHERE identity = ? ORDER BY row", (identity,)
    )
    connection.execute("UPDATE crops SET identity = ? WHERE identity = ?", (new, identity))
    connection.execute("UPDATE OR REPLACE not_identity SET identity = ? WHERE identity = ?", (new, identity))
    connection.execute(
        "DELETE FROM not_identity WHERE identity = ?1 AND row IN (SELECT row FROM crops WHERE identity = ?1)", (new,)
    )


def _record(connection: sqlite3.Connection, crop_id: str) -> Sequence[Any]:
    record: Sequence[Any] | None = connection.execute(
        f"SELECT {CROP_COLUMNS} FROM crops WHERE crop_id = ?", (crop_id,)
    ).fetchone()
    if record is None:
        raise UnknownCrop(crop_id)
    return record


def corrected(labels: Labels, correction: Correction) -> Labels:
    """The labels after a person's correction: who a crop is marked not to be, it is not named."""
    labels = replace(labels, **{name: getattr(correction.labels, name) for name in correction.given})
    if labels.identity in (correction.not_identity or ()):
        labels = replace(labels, identity=None)
    return labels


def corrected_marks(present: Iterable[str], identity: str | None, given: frozenset[str] | None) -> tuple[str, ...]:
    """The marks `present` and `given` in order, none where None is given, and never one against its own identity."""
    return () if given is None else tuple(sorted({*present, *given} - {identity}))


def _mark(
    connection: sqlite3.Connection,
    row: int,
    present: Iterable[str],
    identity: str | None,
    given: frozenset[str] | None,
) -> None:
    due = corrected_marks(present, identity, given)
    connection.execute("DELETE FROM not_identity WHERE row = ?", (row,))
    connection.executemany("INSERT INTO not_identity VALUES (?, ?)", [(row, name) for name in due])
