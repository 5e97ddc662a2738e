"""What the store tells the index of crops, and how both count time: in microseconds since 1970 UTC."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Entry:
    """What the index knows of a crop besides its vector: `row` in the database, what filters need and hits show.

    `captured_at` is in microseconds since 1970 UTC.
    """

    row: int
    crop_id: str
    identity: str | None
    camera: str | None
    captured_at: int | None


@dataclass(frozen=True)
class Changes:
    """What one committed write means for the index, to be applied in the order of the fields.

    `vectors` belong to `added`, one by one; `replaced` are the new vectors of rows whose old ones were damaged.
    """

    added: list[Entry] = field(default_factory=list)
    vectors: list[NDArray[np.float16]] = field(default_factory=list)
    replaced: list[tuple[int, NDArray[np.float16]]] = field(default_factory=list)
    relabelled: list[Entry] = field(default_factory=list)
    removed: list[int] = field(default_factory=list)


def to_micros(moment: datetime) -> int:
    """Microseconds since 1970 UTC, exactly."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def from_micros(micros: int) -> datetime:
    """The moment, in UTC."""
    return _EPOCH + timedelta(microseconds=micros)
