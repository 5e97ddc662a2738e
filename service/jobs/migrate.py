"""`resight migrate`: a gallery in a folder, into a collection of Milvus. Stopped or killed, the same command goes on.

At the end both are read as a whole and compared: how many crops, and a checksum over all that is known of each.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.gallery.readonly import reading_beside, require_newest_schema
from service.gallery.records import Crop
from service.gallery.rows import CROP_COLUMNS, IN_LIST, crop_of
from service.gallery.store import VECTOR, Model
from service.gallery_milvus.crops import AT_ONCE, Crops, Stored
from service.gallery_milvus.gallery import MilvusGallery
from service.jobs.job import JobError, Progress, unheard

_CROPS = (
    f"SELECT {CROP_COLUMNS}, vector, crc32, row IN (SELECT row FROM pictures) "
    "FROM crops LEFT JOIN embeddings USING (row)"
)


@dataclass(frozen=True)
class Contents:
    """A gallery in two figures: its crops, and the sum of the SHA-256 of all that is known of each."""

    crops: int
    checksum: str


@dataclass(frozen=True)
class Migrated:
    """Crops written now and found to be there already, pictures written, and damaged crops, which were left out."""

    written: int
    known: int
    pictures: int
    damaged: tuple[str, ...]
    contents: Contents


def model_of(folder: Path) -> Model:
    """The model of the gallery in a folder. Raises JobError where it is empty, and what `reading_beside` raises."""
    with reading_beside(folder) as gallery:
        require_newest_schema(gallery, folder)
        found = gallery.execute("SELECT model_sha256, model_name, dim FROM gallery").fetchone()
    if found is None:
        raise JobError(f"The gallery in {folder} has no model yet: there is nothing to move.")
    return Model(*found)


def migrate(
    folder: Path, target: MilvusGallery, *, with_pictures: bool = True, progress: Progress = unheard
) -> Migrated:
    """Writes the crops of the gallery in `folder` into `target`, which is open for the same model.

    They keep ids, labels, marks, times and their order, before all that is enrolled into `target` itself. It is the
    state of one moment; stop the service first, so that nothing is enrolled meanwhile. Progress is told in crops.

    Raises JobError when the target holds anything else before, or both do not agree in the end, and what
    `reading_beside` and the target raise.
    """
    written = known = pictures = 0
    damaged: list[str] = []
    with reading_beside(folder) as gallery:
        _require_ours(gallery, target, folder)
        (total,) = gallery.execute("SELECT count(*) FROM crops").fetchone()
        for some in _parts(_source(gallery, damaged)):
            there = target.crops.find([one.stored.crop.crop_id for one in some])
            missing = [one for one in some if not _same(there.get(one.stored.crop.crop_id), one.stored)]
            if with_pictures:
                pictures += _copy_pictures(gallery, target.crops, [one for one in missing if one.has_picture])
            target.crops.write([one.stored for one in missing])
            written, known = written + len(missing), known + len(some) - len(missing)
            progress(written + known, total)
        here = contents(one.stored for one in _source(gallery, []))
    moved = contents(one for some in target.crops.matching("") for one in some)
    if here != moved:
        raise JobError(
            f"The collection does not hold what {folder} holds: {moved.crops:,} crops with checksum "
            f"{moved.checksum[:12]}… there, {here.crops:,} with {here.checksum[:12]}… here. Erase there what is not "
            "here, or migrate into a new collection."
        )
    return Migrated(written, known, pictures, tuple(damaged), here)


@dataclass(frozen=True, eq=False)
class _Row:
    stored: Stored
    has_picture: bool


def _require_ours(gallery: sqlite3.Connection, target: MilvusGallery, folder: Path) -> None:
    """Raises JobError where the target has crops that are not in the folder, or not the same: it may be in use."""
    for some in target.crops.matching(""):
        ids = json.dumps([one.crop.crop_id for one in some])
        here = {row.stored.crop.crop_id: row.stored for row in _source(gallery, [], f"crop_id {IN_LIST}", ids)}
        other = [one.crop.crop_id for one in some if not _same(here.get(one.crop.crop_id), one)]
        if other:
            raise JobError(
                f"The collection holds what {folder} does not hold, such as crop {other[0]}: nothing was written. "
                "Migrate into a new collection, or erase there what is not here."
            )


def _source(gallery: sqlite3.Connection, damaged: list[str], which: str = "true", *parameters: str) -> Iterator[_Row]:
    """The crops for which `which` is true and whose embedding is sound; the ids of the others go into `damaged`."""
    for record in gallery.execute(f"{_CROPS} WHERE {which} ORDER BY row", parameters):
        crop, (vector, crc, has_picture) = crop_of(record), record[-3:]
        if vector is None or zlib.crc32(vector) != crc:
            damaged.append(crop.crop_id)
            continue
        yield _Row(Stored(crop, np.frombuffer(vector, VECTOR), record[0]), bool(has_picture))


def _parts(rows: Iterable[_Row]) -> Iterator[list[_Row]]:
    part: list[_Row] = []
    for row in rows:
        part.append(row)
        if len(part) == AT_ONCE:
            yield part
            part = []
    if part:
        yield part


def _same(one: Stored | None, other: Stored) -> bool:
    return one is not None and digest(one.crop, one.vector) == digest(other.crop, other.vector)


def _copy_pictures(gallery: sqlite3.Connection, crops: Crops, rows: list[_Row]) -> int:
    """Pictures come before their crops, so that a crop that is there has its picture."""
    for row in rows:
        (jpeg,) = gallery.execute("SELECT jpeg FROM pictures WHERE row = ?", (row.stored.seq,)).fetchone()
        crops.pictures.put(row.stored.crop.crop_id, jpeg)
    return len(rows)


def contents(stored: Iterable[Stored]) -> Contents:
    """The figures of these crops, whatever their order."""
    crops = total = 0
    for one in stored:
        crops += 1
        total = (total + int.from_bytes(digest(one.crop, one.vector))) % 2**256
    return Contents(crops, f"{total:064x}")


def digest(crop: Crop, vector: NDArray[np.float16]) -> bytes:
    """The SHA-256 of all that is known of a crop but its picture."""
    fields = {**asdict(crop), "captured_at": str(crop.captured_at), "enrolled_at": str(crop.enrolled_at)}
    text = json.dumps(fields, sort_keys=True)
    return hashlib.sha256(text.encode() + vector.astype("<f2").tobytes()).digest()


def require_room_for_pictures(folder: Path) -> None:
    """Raises JobError where the gallery has pictures, for a target without a place for them."""
    with reading_beside(folder) as gallery:
        (count,) = gallery.execute("SELECT count(*) FROM pictures").fetchone()
    if count:
        raise JobError(
            f"The gallery has {count:,} pictures, and there is no place for them: set RESIGHT_PICTURES, or say "
            "--drop-pictures to move the rest without them."
        )
