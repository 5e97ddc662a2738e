"""The gallery's truth in SQLite: crops, float16 embeddings with a checksum, pictures, and a change log.

A crop's `row` is never used twice, so rows order crops by enrolment. Times are microseconds since 1970 UTC.
Every write hands its `Changes` to a callback, after the commit and before it is acknowledged.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.gallery.changes import Changes, Entry, to_micros
from service.gallery.database import Database
from service.gallery.labels import merged
from service.gallery.records import (
    Crop,
    Enrolled,
    EnrolStatus,
    GalleryDamaged,
    ModelMismatch,
    NewCrop,
    UnknownCrop,
)
from service.gallery.rows import (
    CROP_COLUMNS,
    IN_LIST,
    crop_of,
    erase,
    label_columns,
    labels_of,
    log_change,
    marks_of,
    relabel,
)
from service.gallery.schema import MIGRATIONS

VECTOR = np.dtype("<f2")
LOAD_CHUNK = 4096

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Model:
    """The model that made the gallery's embeddings; `dim` is their length."""

    sha256: str
    name: str
    dim: int


@dataclass(frozen=True)
class Loaded:
    """Some crops as the index takes them: vectors [n, D], zero where not `sound` [n]."""

    entries: list[Entry]
    vectors: NDArray[np.float16]
    sound: NDArray[np.bool_]


class Store:
    """Crops on disk. Thread-safe; make it with `open`, give it back with `close`."""

    def __init__(self, database: Database, dim: int) -> None:
        self._database = database
        self._vector_bytes = dim * VECTOR.itemsize
        self._dim = dim

    @classmethod
    def open(cls, folder: Path, model: Model) -> Store:
        """Opens the gallery in `folder` for `model`; an empty gallery adopts it.

        Raises: ModelMismatch, and what `Database.open` raises.
        """
        database = Database.open(folder, MIGRATIONS)
        try:
            database.write(lambda connection: _adopt_model(connection, folder, model))
        except BaseException:
            database.close()
            raise
        return cls(database, model.dim)

    @property
    def database(self) -> Database:
        """The database, for the use cases that have a module of their own."""
        return self._database

    @property
    def unpublished(self) -> int:
        """Writes that are committed and of which the index does not know yet. Never blocks."""
        return self._database.unpublished

    @property
    def trouble(self) -> str | None:
        """Why no write is taken, None while they are."""
        return self._database.trouble

    def close(self) -> None:
        """Finishes the writes under way and frees the folder. Idempotent."""
        self._database.close()

    def count(self) -> int:
        """How many crops are stored."""
        with self._database.reading() as connection:
            count: int = connection.execute("SELECT count(*) FROM crops").fetchone()[0]
        return count

    def load(self, rows: Iterable[int] | None = None) -> Iterator[Loaded]:
        """All crops, or those of `rows` that are not gone, by row and in chunks.

        A damaged vector is logged by its crop_id and marked, never returned.
        """
        wanted, values = ("", ()) if rows is None else (f"WHERE row {IN_LIST}", (json.dumps(list(rows)),))
        query = (
            "SELECT row, crop_id, identity, camera, captured_at, vector, crc32 "
            f"FROM crops LEFT JOIN embeddings USING (row) {wanted} ORDER BY row"
        )
        with self._database.reading() as connection:
            cursor = connection.execute(query, values)
            while records := cursor.fetchmany(LOAD_CHUNK):
                yield self._chunk(records)

    def _chunk(self, records: list[tuple[Any, ...]]) -> Loaded:
        entries = [Entry(*record[:5]) for record in records]
        sound = np.array([self._is_sound(vector, crc) for *_, vector, crc in records])
        for entry in (entries[i] for i in np.flatnonzero(~sound)):
            _log.error(
                "the embedding of crop %s is damaged: it is kept out of searches until its picture is enrolled again",
                entry.crop_id,
            )
        vectors = np.zeros((len(records), self._dim), VECTOR)
        intact = b"".join(record[5] for record, good in zip(records, sound, strict=True) if good)
        vectors[sound] = np.frombuffer(intact, VECTOR).reshape(-1, self._dim)
        return Loaded(entries, vectors, sound)

    def _is_sound(self, vector: bytes | None, crc: int | None) -> bool:
        return vector is not None and len(vector) == self._vector_bytes and zlib.crc32(vector) == crc

    def crop(self, crop_id: str) -> Crop:
        """Raises UnknownCrop."""
        with self._database.reading() as connection:
            record = connection.execute(f"SELECT {CROP_COLUMNS} FROM crops WHERE crop_id = ?", (crop_id,)).fetchone()
        if record is None:
            raise UnknownCrop(crop_id)
        return crop_of(record)

    def crops(self, rows: Iterable[int]) -> dict[int, Crop]:
        """The crops of these rows, without those that are gone."""
        query = f"SELECT {CROP_COLUMNS} FROM crops WHERE row {IN_LIST}"
        with self._database.reading() as connection:
            records = connection.execute(query, (json.dumps(list(rows)),)).fetchall()
        return {record[0]: crop_of(record) for record in records}

    def picture(self, crop_id: str) -> bytes | None:
        """The stored JPEG, None if none was stored. Raises UnknownCrop."""
        with self._database.reading() as connection:
            record = connection.execute(
                "SELECT jpeg FROM crops LEFT JOIN pictures USING (row) WHERE crop_id = ?", (crop_id,)
            ).fetchone()
        if record is None:
            raise UnknownCrop(crop_id)
        jpeg: bytes | None = record[0]
        return jpeg

    def known(self, crop_ids: Iterable[str]) -> set[str]:
        """Those that are enrolled with a sound vector."""
        found = self._stored_vectors(crop_ids)
        return {crop_id for crop_id, (vector, crc) in found.items() if self._is_sound(vector, crc)}

    def vectors(self, crop_ids: Sequence[str]) -> NDArray[np.float16]:
        """Embeddings [n, D] in the order asked for. Raises UnknownCrop; GalleryDamaged for a damaged one."""
        found = self._stored_vectors(crop_ids)
        vectors = np.empty((len(crop_ids), self._dim), VECTOR)
        for place, crop_id in enumerate(crop_ids):
            if crop_id not in found:
                raise UnknownCrop(crop_id)
            vector, crc = found[crop_id]
            if vector is None or not self._is_sound(vector, crc):
                raise GalleryDamaged(f"The stored embedding of crop {crop_id} is damaged; enrol its picture again.")
            vectors[place] = np.frombuffer(vector, VECTOR)
        return vectors

    def _stored_vectors(self, crop_ids: Iterable[str]) -> dict[str, tuple[bytes | None, int | None]]:
        query = f"SELECT crop_id, vector, crc32 FROM crops LEFT JOIN embeddings USING (row) WHERE crop_id {IN_LIST}"
        with self._database.reading() as connection:
            records = connection.execute(query, (json.dumps(list(crop_ids)),)).fetchall()
        return {crop_id: (vector, crc) for crop_id, vector, crc in records}

    def enrol(
        self,
        items: Sequence[NewCrop],
        vectors: Sequence[NDArray[np.float16] | None],
        publish: Callable[[Changes], None],
    ) -> list[Enrolled]:
        """Stores all items or none; `vectors` are their embeddings as stored. Raises UnknownCrop."""

        def transaction(connection: sqlite3.Connection) -> tuple[list[Enrolled], Changes]:
            changes = Changes()
            now = to_micros(datetime.now(UTC))
            enrolled = [
                self._enrol_one(connection, item, vector, now, changes)
                for item, vector in zip(items, vectors, strict=True)
            ]
            return enrolled, changes

        enrolled, _ = self._database.write(transaction, lambda result: publish(result[1]))
        return enrolled

    def _enrol_one(
        self,
        connection: sqlite3.Connection,
        item: NewCrop,
        vector: NDArray[np.float16] | None,
        now: int,
        changes: Changes,
    ) -> Enrolled:
        stored = connection.execute(
            f"SELECT {CROP_COLUMNS}, vector, crc32 FROM crops LEFT JOIN embeddings USING (row) WHERE crop_id = ?",
            (item.crop_id,),
        ).fetchone()
        if stored is None:
            if vector is None:
                raise UnknownCrop(item.crop_id)
            changes.added.append(_insert(connection, item, vector, now))
            changes.vectors.append(vector)
            return Enrolled(item.crop_id, "created", item.labels.identity, item.labels.camera)
        row, new = stored[0], merged(labels_of(stored), marks_of(stored), item.labels)
        entry = relabel(connection, stored, new)
        damaged = vector is not None and not self._is_sound(*stored[-2:])
        if damaged and vector is not None:
            _replace_vector(connection, row, vector)
            changes.replaced.append((row, vector))
        if entry is not None:
            changes.relabelled.append(entry)
        status: EnrolStatus = "updated" if damaged or entry is not None else "duplicate"
        return Enrolled(item.crop_id, status, new.identity, new.camera)

    def delete(self, crop_id: str, publish: Callable[[Changes], None]) -> None:
        """Erases the crop, its vector and its picture from the file and its log. Raises UnknownCrop.

        Where a reader still needs the log when this returns, their bytes go as soon as it lets go.
        """

        def transaction(connection: sqlite3.Connection) -> Changes:
            record = connection.execute("SELECT row FROM crops WHERE crop_id = ?", (crop_id,)).fetchone()
            if record is None:
                raise UnknownCrop(crop_id)
            return erase(connection, record)

        self._database.write(transaction, publish, erases=True)


def _adopt_model(connection: sqlite3.Connection, folder: Path, model: Model) -> None:
    stored = connection.execute("SELECT model_sha256, model_name FROM gallery").fetchone()
    if stored is None:
        connection.execute(
            "INSERT INTO gallery VALUES (1, ?, ?, ?, ?)", (*astuple(model), to_micros(datetime.now(UTC)))
        )
        return
    if stored[0] == model.sha256:
        return
    if connection.execute("SELECT EXISTS (SELECT 1 FROM crops)").fetchone()[0]:
        raise ModelMismatch(
            f"The gallery in {folder} was made by the model {stored[1]} (sha256 {stored[0][:12]}…) and cannot "
            f"be searched with {model.name} (sha256 {model.sha256[:12]}…): serve it with its own model, or "
            "let `resight reembed` embed its pictures with this one."
        )
    connection.execute("UPDATE gallery SET model_sha256 = ?, model_name = ?, dim = ?", astuple(model))


def _insert(connection: sqlite3.Connection, item: NewCrop, vector: NDArray[np.float16], now: int) -> Entry:
    columns = label_columns(item.labels)
    row = connection.execute(
        "INSERT INTO crops (crop_id, identity, camera, captured_at, track, meta, enrolled_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (item.crop_id, *columns, now if item.enrolled_at is None else to_micros(item.enrolled_at)),
    ).lastrowid
    assert row is not None  # the type allows it for statements that are no INSERT
    blob = vector.tobytes()
    connection.execute("INSERT INTO embeddings VALUES (?, ?, ?)", (row, blob, zlib.crc32(blob)))
    if item.thumbnail is not None:
        connection.execute("INSERT INTO pictures VALUES (?, ?)", (row, item.thumbnail))
    marks = sorted({*item.not_identity} - {item.labels.identity})
    connection.executemany("INSERT INTO not_identity VALUES (?, ?)", [(row, name) for name in marks])
    log_change(connection, row, "enrol")
    return Entry(row, item.crop_id, *columns[:3])


def _replace_vector(connection: sqlite3.Connection, row: int, vector: NDArray[np.float16]) -> None:
    blob = vector.tobytes()
    connection.execute("INSERT OR REPLACE INTO embeddings VALUES (?, ?, ?)", (row, blob, zlib.crc32(blob)))
    log_change(connection, row, "replace")
