"""Crops as rows of a Milvus collection. Milvus 2.3 knows no null: an empty text, or NO_TIME, stands for it.

Embeddings are rounded to float16, as in the embedded gallery, and written as float32: Milvus 2.3 has no other numbers.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from service.gallery.changes import from_micros, to_micros
from service.gallery.records import Crop, Filters, GalleryDamaged, HitCrop, Labels
from service.gallery.rows import label_columns
from service.gallery_milvus.server import Row, among, both, quoted

KEY, VECTOR = "crop_id", "embedding"
NO_TIME = -(2**62)
SHOWN = ("identity", "camera", "captured_at")
LABELS = (*SHOWN, "track", "meta", "enrolled_at", "marks", "seq")
EVERYTHING = (*LABELS, "crc32", VECTOR)


def row_of(crop: Crop, vector: NDArray[np.float16], seq: int) -> Row:
    """The row of a crop; `seq` is its place in the order of enrolment."""
    identity, camera, captured_at, track, meta = label_columns(labels_of(crop))
    return {
        KEY: crop.crop_id,
        VECTOR: vector.astype(np.float32).tolist(),
        "crc32": zlib.crc32(vector.tobytes()),
        "seq": seq,
        "identity": identity or "",
        "camera": camera or "",
        "captured_at": NO_TIME if captured_at is None else captured_at,
        "track": track or "",
        "meta": meta or "",
        "enrolled_at": to_micros(crop.enrolled_at),
        "marks": {"of": list(crop.not_identity)},
    }


def crop_of(row: Row) -> Crop:
    """The crop in a row with `LABELS`."""
    marks = row["marks"]
    marks = json.loads(marks) if isinstance(marks, str | bytes) else marks
    return Crop(
        crop_id=row[KEY],
        identity=row["identity"] or None,
        camera=row["camera"] or None,
        captured_at=_time(row["captured_at"]),
        track=row["track"] or None,
        meta=json.loads(row["meta"]) if row["meta"] else None,
        enrolled_at=from_micros(int(row["enrolled_at"])),
        not_identity=tuple(sorted(marks["of"])),
    )


def hit_of(row: Row) -> HitCrop:
    """What an answer shows of the crop in a row with `SHOWN`."""
    return HitCrop(row[KEY], row["identity"] or None, row["camera"] or None, _time(row["captured_at"]))


def vector_of(row: Row) -> NDArray[np.float16]:
    """The embedding [D] in a row that has it and its checksum. Raises GalleryDamaged."""
    if not is_sound(row):
        raise GalleryDamaged(f"The stored embedding of crop {row[KEY]} is damaged; enrol its picture again.")
    return _vector(row)


def is_sound(row: Row) -> bool:
    """Whether the embedding in a row that has it and its checksum is the one that was stored."""
    return zlib.crc32(_vector(row).tobytes()) == int(row["crc32"])


def _vector(row: Row) -> NDArray[np.float16]:
    return np.asarray(row[VECTOR], np.float32).astype(np.float16)


def same_labels(one: Crop, other: Crop) -> bool:
    """As stored: to Python, true equals 1."""
    return label_columns(labels_of(one)) == label_columns(labels_of(other))


def labels_of(crop: Crop) -> Labels:
    """What is said about a crop."""
    return Labels(crop.identity, crop.camera, crop.captured_at, crop.track, crop.meta)


def _time(micros: int) -> datetime | None:
    return None if int(micros) == NO_TIME else from_micros(int(micros))


def marked_against(identity: str) -> str:
    """The expression: a person has said that the crop is not this identity."""
    return f'json_contains(marks["of"], {quoted(identity)})'


def passing(filters: Filters) -> str:
    """The expression for what `Filters` says; empty when that is everything."""

    def named(field: str, names: frozenset[str]) -> str:
        return among(field, sorted(names)) if names else ""

    def but(field: str, names: frozenset[str]) -> str:
        return f"not ({named(field, names)})" if names else ""

    since = "" if filters.since is None else f"captured_at >= {to_micros(filters.since)}"
    until = "" if filters.until is None else f"captured_at < {to_micros(filters.until)} && captured_at > {NO_TIME}"
    return both(
        named("camera", filters.cameras),
        but("camera", filters.exclude_cameras),
        named("identity", filters.identities),
        but("identity", filters.exclude_identities),
        since,
        until,
        'identity == ""' if filters.unidentified else "",
    )


def matrix(rows: Sequence[Row], dim: int) -> NDArray[np.float16]:
    """Their embeddings [n, D], unchecked."""
    return np.asarray([row[VECTOR] for row in rows], np.float32).reshape(-1, dim).astype(np.float16)
