"""What filters and ranking need and hits show of every crop, in compact arrays aligned with the vectors.

Position i of every array is vector i of the index. Rows ascend with positions. A crop takes 62 bytes (62 MB at
a million), and every different name is held once; in return a query needs no SQL statement.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.gallery.changes import Entry, from_micros, to_micros
from service.gallery.records import Filters, HitCrop

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

    def reserve(self, count: int) -> None:
        """Makes room for `count` values in all."""
        if count > len(self._buffer):
            grown = np.empty(count, self._buffer.dtype)
            grown[: self._count] = self.values
            self._buffer = grown

    def extend(self, values: NDArray[Scalar]) -> None:
        needed = self._count + len(values)
        if needed > len(self._buffer):
            self.reserve(max(needed, 2 * len(self._buffer)))
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

    def used(self, codes: NDArray[np.int32]) -> tuple[NDArray[np.int32], list[str]]:
        """The same names [n] with codes from 0 up and without gaps, and the names in the order of those codes."""
        present, renumbered = np.unique(codes[codes != NOBODY], return_inverse=True)
        dense = np.full(len(codes), NOBODY, np.int32)
        dense[codes != NOBODY] = renumbered
        return dense, [self._names[code] for code in present.tolist()]

    def known(self, names: Iterable[str]) -> list[int]:
        """The codes of those that have one."""
        return [self._codes[name] for name in names if name in self._codes]


@dataclass(frozen=True)
class Frozen:
    """All columns of `n` crops at one moment, arrays [n] with codes for names; in it only crops that are present."""

    row: NDArray[np.int64]
    crop_id: NDArray[np.bytes_]
    identity: NDArray[np.int32]
    camera: NDArray[np.int32]
    captured_at: NDArray[np.int64]
    searchable: NDArray[np.bool_]
    identities: list[str]
    cameras: list[str]


class Tally:
    """How many crops each identity has, and how many identities have any."""

    def __init__(self) -> None:
        self.identities = 0
        self._crops = Column(np.int64)

    def add(self, codes: NDArray[np.int32]) -> None:
        """Counts crops of these identities in."""
        named = codes[codes != NOBODY]
        new = int(named.max(initial=-1)) + 1 - len(self._crops.values)
        self._crops.extend(np.zeros(max(new, 0), np.int64))
        crops = self._crops.values
        self.identities += int(np.count_nonzero(crops[np.unique(named)] == 0))
        np.add.at(crops, named, 1)

    def remove(self, code: int) -> None:
        """Counts one crop of this identity out."""
        if code == NOBODY:
            return
        self._crops.values[code] -= 1
        self.identities -= int(self._crops.values[code] == 0)


class Columns:
    """The arrays. Not thread-safe."""

    def __init__(self) -> None:
        self.crop_count = 0
        self._row = Column(np.int64)
        self._crop_id = Column(np.dtype(f"S{CROP_ID_LENGTH}"))
        self._identity = Column(np.int32)
        self._camera = Column(np.int32)
        self._captured_at = Column(np.int64)
        self._present = Column(np.bool_)
        self._searchable = Column(np.bool_)
        self._identities = Names()
        self._cameras = Names()
        self._tally = Tally()

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

    @property
    def identity_count(self) -> int:
        """How many identities have a crop."""
        return self._tally.identities

    def crop(self, position: int) -> HitCrop:
        """What an answer shows of the crop there."""
        captured_at = int(self._captured_at.values[position])
        return HitCrop(
            crop_id=self.crop_id[position].decode("ascii"),
            identity=self._identities.decode(int(self.identity[position])),
            camera=self._cameras.decode(int(self._camera.values[position])),
            captured_at=None if captured_at == NO_TIME else from_micros(captured_at),
        )

    def reserve(self, count: int) -> None:
        """Makes room for `count` crops in all."""
        for column in self._arrays():
            column.reserve(count)

    def append(self, entries: Sequence[Entry], sound: NDArray[np.bool_]) -> None:
        """Adds crops with ascending rows; those not `sound` [n] are listed but not searched."""
        self._row.extend(np.array([entry.row for entry in entries], np.int64))
        self._crop_id.extend(np.array([entry.crop_id for entry in entries], self._crop_id.values.dtype))
        identities = np.array([self._identities.encode(entry.identity) for entry in entries], np.int32)
        self._identity.extend(identities)
        self._camera.extend(np.array([self._cameras.encode(e.camera) for e in entries], np.int32))
        self._captured_at.extend(np.array([_time(entry) for entry in entries], np.int64))
        self._present.extend(np.ones(len(entries), np.bool_))
        self._searchable.extend(sound)
        self._tally.add(identities)
        self.crop_count += len(entries)

    def freeze(self) -> Frozen:
        """A copy of what is present, with no name that nothing has any more."""
        kept = self.present
        identity, identities = self._identities.used(self.identity[kept])
        camera, cameras = self._cameras.used(self._camera.values[kept])
        return Frozen(
            row=self.row[kept],
            crop_id=self.crop_id[kept],
            identity=identity,
            camera=camera,
            captured_at=self._captured_at.values[kept],
            searchable=self.searchable[kept],
            identities=identities,
            cameras=cameras,
        )

    def thaw(self, frozen: Frozen) -> None:
        """Takes over what was frozen; there must be no crops yet."""
        for names, listed in ((self._identities, frozen.identities), (self._cameras, frozen.cameras)):
            for name in listed:
                names.encode(name)
        self._row.extend(frozen.row)
        self._crop_id.extend(frozen.crop_id)
        self._identity.extend(frozen.identity)
        self._camera.extend(frozen.camera)
        self._captured_at.extend(frozen.captured_at)
        self._present.extend(np.ones(len(frozen.row), np.bool_))
        self._searchable.extend(frozen.searchable)
        self._tally.add(frozen.identity)
        self.crop_count += len(frozen.row)

    def position(self, row: int) -> int:
        """Where the row is; raises KeyError when it is not there."""
        position = int(np.searchsorted(self.row, row))
        if position == len(self) or self.row[position] != row or not self.present[position]:
            raise KeyError(row)
        return position

    def relabel(self, entry: Entry) -> None:
        position = self.position(entry.row)
        was, becomes = int(self.identity[position]), self._identities.encode(entry.identity)
        self._tally.remove(was)
        self._tally.add(np.array([becomes], np.int32))
        self._identity.values[position] = becomes
        self._camera.values[position] = self._cameras.encode(entry.camera)
        self._captured_at.values[position] = _time(entry)

    def mark_searchable(self, position: int) -> None:
        self._searchable.values[position] = True

    def remove(self, row: int) -> None:
        position = self.position(row)
        self._present.values[position] = False
        self._searchable.values[position] = False
        self._tally.remove(int(self.identity[position]))
        self.crop_count -= 1

    def keep(self, mask: NDArray[np.bool_]) -> None:
        """Drops the positions where `mask` is False; the others move together."""
        for column in self._arrays():
            column.keep(mask)

    def _arrays(self) -> tuple[Column[Any], ...]:
        numbers = (self._row, self._identity, self._camera, self._captured_at)
        return (*numbers, self._crop_id, self._present, self._searchable)

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
        if filters.exclude_identities:
            mask &= np.isin(self.identity, self._identities.known(filters.exclude_identities), invert=True)
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
