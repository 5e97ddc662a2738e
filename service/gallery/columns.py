"""What filters and ranking need of every crop, in compact arrays aligned with the vectors.

Position i of every array is vector i of the index. Rows ascend with positions. At a million crops this
costs 60 MB and no statement per candidate.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.gallery.records import Entry, Filters, to_micros

NOBODY = -1  # the code of "no identity" and of "no camera"
NO_TIME = np.iinfo(np.int64).min
CROP_ID_LENGTH = 36  # a UUID as text

Scalar = TypeVar("Scalar", bound=np.generic)


class Column(Generic[Scalar]):
    """An array that grows by doubling."""

    def __init__(self, dtype: type[Scalar] | np.dtype[Scalar]) -> None:
        self._buffer: NDArray[Scalar] = np.empty(0, dtype)
        self._count = 0

    @property
    def values(self) -> NDArray[Scalar]:
        """A view of what is filled."""
        return self._buffer[: self._count]

    def extend(self, values: NDArray[Scalar]) -> None:
        needed = self._count + len(values)
        if needed > len(self._buffer):
            grown = np.empty(max(needed, 2 * len(self._buffer)), self._buffer.dtype)
            grown[: self._count] = self.values
            self._buffer = grown
        self._buffer[self._count : needed] = values
        self._count = needed

    def keep(self, mask: NDArray[np.bool_]) -> None:
        self._buffer = self.values[mask]
        self._count = len(self._buffer)


class Names:
    """Small integers for names."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self._names: list[str] = []

    def encode(self, name: str | None) -> int:
        if name is None:
            return NOBODY
        code = self._codes.setdefault(name, len(self._names))
        if code == len(self._names):
            self._names.append(name)
        return code

    def decode(self, code: int) -> str | None:
        return None if code == NOBODY else self._names[code]

    def known(self, names: Iterable[str]) -> list[int]:
        """The codes of those that have one."""
        return [self._codes[name] for name in names if name in self._codes]


class Columns:
    """The arrays. Not thread-safe."""

    def __init__(self) -> None:
        self._row = Column(np.int64)
        self._crop_id = Column(np.dtype(f"S{CROP_ID_LENGTH}"))
        self._identity = Column(np.int32)
        self._camera = Column(np.int32)
        self._captured_at = Column(np.int64)
        self._present = Column(np.bool_)
        self._searchable = Column(np.bool_)
        self._identities = Names()
        self._cameras = Names()

    def __len__(self) -> int:
        return len(self.row)

    @property
    def row(self) -> NDArray[np.int64]:
        return self._row.values

    @property
    def crop_id(self) -> NDArray[np.bytes_]:
        return self._crop_id.values

    @property
    def identity(self) -> NDArray[np.int32]:
        """Codes, NOBODY for a crop without identity."""
        return self._identity.values

    @property
    def searchable(self) -> NDArray[np.bool_]:
        """False for removed crops and for those whose vector is damaged."""
        return self._searchable.values

    @property
    def present(self) -> NDArray[np.bool_]:
        """False for removed crops."""
        return self._present.values

    def identity_name(self, code: int) -> str | None:
        return self._identities.decode(code)

    def append(self, entries: Sequence[Entry], sound: NDArray[np.bool_]) -> None:
        """Adds crops with ascending rows; those not `sound` [n] are listed but not searched."""
        self._row.extend(np.array([entry.row for entry in entries], np.int64))
        self._crop_id.extend(np.array([entry.crop_id for entry in entries], self._crop_id.values.dtype))
        self._identity.extend(np.array([self._identities.encode(e.identity) for e in entries], np.int32))
        self._camera.extend(np.array([self._cameras.encode(e.camera) for e in entries], np.int32))
        self._captured_at.extend(np.array([_time(entry) for entry in entries], np.int64))
        self._present.extend(np.ones(len(entries), np.bool_))
        self._searchable.extend(sound)

    def position(self, row: int) -> int:
        """Where the row is; raises KeyError when it is not there."""
        position = int(np.searchsorted(self.row, row))
        if position == len(self) or self.row[position] != row or not self.present[position]:
            raise KeyError(row)
        return position

    def relabel(self, entry: Entry) -> None:
        position = self.position(entry.row)
        self._identity.values[position] = self._identities.encode(entry.identity)
        self._camera.values[position] = self._cameras.encode(entry.camera)
        self._captured_at.values[position] = _time(entry)

    def mark_searchable(self, position: int) -> None:
        self._searchable.values[position] = True

    def remove(self, row: int) -> None:
        position = self.position(row)
        self._present.values[position] = False
        self._searchable.values[position] = False

    def keep(self, mask: NDArray[np.bool_]) -> None:
        """Drops the positions where `mask` is False; the others move together."""
        for column in (self._row, self._identity, self._camera, self._captured_at):
            column.keep(mask)
        self._crop_id.keep(mask)
        self._present.keep(mask)
        self._searchable.keep(mask)

    def select(self, filters: Filters) -> NDArray[np.bool_]:
        """Which crops pass the filters: bool [n], damaged ones included, removed ones not."""
        mask = self.present.copy()
        camera, captured_at = self._camera.values, self._captured_at.values
        if filters.cameras:
            mask &= np.isin(camera, self._cameras.known(filters.cameras))
        if filters.exclude_cameras:
            mask &= np.isin(camera, self._cameras.known(filters.exclude_cameras), invert=True)
        if filters.identities:
            mask &= np.isin(self.identity, self._identities.known(filters.identities))
        if filters.unidentified:
            mask &= self.identity == NOBODY
        if filters.since is not None:
            mask &= captured_at >= to_micros(filters.since)
        if filters.until is not None:
            mask &= (captured_at < to_micros(filters.until)) & (captured_at != NO_TIME)
        return mask

    def count_identities(self, mask: NDArray[np.bool_]) -> tuple[int, int]:
        """How many identities, and how many crops without one, are among the crops in `mask`."""
        codes = self.identity[mask]
        counts = np.bincount(codes + 1, minlength=1)
        return int(np.count_nonzero(counts[1:])), int(counts[0])


def _time(entry: Entry) -> int:
    return NO_TIME if entry.captured_at is None else entry.captured_at
