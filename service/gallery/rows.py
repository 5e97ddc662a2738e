"""Crops as rows of the database: reading one, writing its labels, erasing it. For use inside a transaction.

What changes rows tells the index what to do: an `Entry` for changed labels, the rows that are gone.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from service.gallery.changes import Changes, Entry, from_micros, to_micros
from service.gallery.records import Crop, GalleryDamaged, Labels

CROP_COLUMNS = (
    "row, crop_id, identity, camera, captured_at, track, meta, enrolled_at, "
    "(SELECT json_group_array(marks.identity) FROM not_identity AS marks WHERE marks.row = crops.row)"
)
IN_LIST = "IN (SELECT value FROM json_each(?))"  # one parameter for a list of any length


def crop_of(record: Sequence[Any]) -> Crop:
    """The crop in a record that begins with `CROP_COLUMNS`. Raises GalleryDamaged."""
    try:
        known = labels_of(record)
        return Crop(
            crop_id=record[1],
            identity=known.identity,
            camera=known.camera,
            captured_at=known.captured_at,
            track=known.track,
            meta=known.meta,
            enrolled_at=from_micros(record[7]),
            not_identity=marks_of(record),
        )
    except (ValueError, TypeError, OverflowError) as error:
        raise GalleryDamaged(f"What is stored of crop {record[1]} is damaged; restore a backup.") from error


def labels_of(record: Sequence[Any]) -> Labels:
    """The labels in such a record."""
    captured_at = None if record[4] is None else from_micros(record[4])
    meta: Mapping[str, object] | None = None if record[6] is None else json.loads(record[6])
    return Labels(record[2], record[3], captured_at, record[5], meta)


def marks_of(record: Sequence[Any]) -> tuple[str, ...]:
    """The identities that the crop in such a record is marked not to be, in order."""
    return tuple(sorted(json.loads(record[8])))


def label_columns(labels: Labels) -> tuple[str | None, str | None, int | None, str | None, str | None]:
    """Identity, camera, captured_at, track and meta as they are stored."""
    captured_at = None if labels.captured_at is None else to_micros(labels.captured_at)
    meta = None if labels.meta is None else json.dumps(dict(labels.meta), allow_nan=False)
    return labels.identity, labels.camera, captured_at, labels.track, meta


def relabel(connection: sqlite3.Connection, record: Sequence[Any], labels: Labels) -> Entry | None:
    """Writes `labels` over those of a record that begins with `CROP_COLUMNS`; None when they were the same."""
    columns = label_columns(labels)
    if columns == tuple(record[2:7]):  # as stored: to Python, true equals 1
        return None
    row, crop_id = record[:2]
    connection.execute(
        "UPDATE crops SET identity = ?, camera = ?, captured_at = ?, track = ?, meta = ? WHERE row = ?",
        (*columns, row),
    )
    log_change(connection, row, "relabel")
    return Entry(row, crop_id, *columns[:3])


def erase(connection: sqlite3.Connection, rows: Sequence[int]) -> Changes:
    """Deletes these crops with all that belongs to them; the write must be one that `erases`."""
    listed = json.dumps(list(rows))
    connection.execute(f"DELETE FROM crops WHERE row {IN_LIST}", (listed,))
    connection.execute("INSERT INTO changes (row, op) SELECT value, 'delete' FROM json_each(?)", (listed,))
    return Changes(removed=list(rows))


def log_change(connection: sqlite3.Connection, row: int, op: str) -> None:
    """Notes for those who catch up with the database what became of the row."""
    connection.execute("INSERT INTO changes (row, op) VALUES (?, ?)", (row, op))
