"""What filters and ranking need and hits show of every crop, in compact arrays aligned with the vectors.

Position i of every array is vector i of the index. Rows ascend with positions. A crop takes 66 bytes (66 MB at
a million), and every different name is held once, until what nobody has is dropped with the removed crops; in return a
query needs no SQL statement.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.gallery.changes import Entry, from_micros, to_micros
from service.gallery.growing import Column
from service.gallery.members import NOBODY, Members
from service.gallery.records import Filters, HitCrop

NO_TIME = np.iinfo(np.int64).min
CROP_ID_LENGTH = 36  # a UUID as text


class Names:
    """Small integers for names."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        """Different `names` have the codes from 0 up."""
        self._names = list(names)
        self._codes = {name: code for code, name in enumerate(self._names)}

    def encode(self, name: str | None) -> int:
        if name is None:
            return NOBODY
        code = self._codes.setdefault(name, len(self._names))
        if code == len(self._names):
            self._names.append(name)
        return code

    def only_used(self, codes: NDArray[np.int32]) -> Names:
        """The names in use, and no others; `codes` [n], all that stand for them, are renumbered in place."""
        codes[:], listed = self.used(codes)
        return Names(listed)

    def decode(self, code: int) -> str | None:
        return None if code == NOBODY else self._names[code]

    def used(self, codes: NDArray[np.int32]) -> tuple[NDArray[np.int32], list[str]]:
        """The same names [n] with codes from 0 up and without gaps, and the names in the order of those codes."""
        present, renumbered = np.unique(codes[codes != NOBODY], return_inverse=True)
        dense = np.full(len(codes), NOBODY, np.int32)
        dense[codes != NOBODY] = renumbered
        return dense, [self._names[code] for code in present.tolist()]

    def among(self, names: Iterable[str], codes: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Which of these codes [n] stand for one of the names."""
        named = np.zeros(len(self._names) + 1, np.bool_)  # its last entry answers for NOBODY
        named[[self._codes[name] for name in names if name in self._codes]] = True
        return named[codes]


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


@dataclass(frozen=True, eq=False)
class Selection:
    """What a query is compared with: `mask` [n] says which positions count, None: all of them do.

    `count` is how many, `candidates` how many identities and crops without one are among them.
    """

    mask: NDArray[np.bool_] | None
    count: int
    candidates: int


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
        self._members = Members()
        self._damaged: set[int] = set()  # positions of crops that are present and not searchable

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
        return self._members.identities

    def members(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """The positions of all crops of these identities."""
        return self._members.of(codes)

    def crops(self, positions: NDArray[np.int64]) -> list[HitCrop]:
        """What an answer shows of the crops there."""
        columns = (self._crop_id, self._identity, self._camera, self._captured_at)
        return [
            HitCrop(
                crop_id=crop_id.decode("ascii"),
                identity=self._identities.decode(identity),
                camera=self._cameras.decode(camera),
                captured_at=None if captured_at == NO_TIME else from_micros(captured_at),
            )
            for crop_id, identity, camera, captured_at in zip(
                *(column.values[positions].tolist() for column in columns), strict=True
            )
        ]

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
        self._count_in(len(entries))

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
        self._identities, self._cameras = Names(frozen.identities), Names(frozen.cameras)
        self._row.extend(frozen.row)
        self._crop_id.extend(frozen.crop_id)
        self._identity.extend(frozen.identity)
        self._camera.extend(frozen.camera)
        self._captured_at.extend(frozen.captured_at)
        self._present.extend(np.ones(len(frozen.row), np.bool_))
        self._searchable.extend(frozen.searchable)
        self._count_in(len(frozen.row))

    def _count_in(self, new: int) -> None:
        """Counts the last `new` crops in."""
        positions = np.arange(len(self) - new, len(self))
        self._members.add(self.identity[positions], positions)
        self._damaged.update(positions[~self.searchable[positions]].tolist())
        self.crop_count += new

    def position(self, row: int) -> int:
        """Where the row is; raises KeyError when it is not there."""
        position = int(np.searchsorted(self.row, row))
        if position == len(self) or self.row[position] != row or not self.present[position]:
            raise KeyError(row)
        return position

    def relabel(self, entry: Entry) -> None:
        position = self.position(entry.row)
        was, becomes = int(self.identity[position]), self._identities.encode(entry.identity)
        if was != becomes:
            self._members.remove(was, position)
            self._members.add(np.array([becomes], np.int32), np.array([position]))
        self._identity.values[position] = becomes
        self._camera.values[position] = self._cameras.encode(entry.camera)
        self._captured_at.values[position] = _time(entry)

    def mark_searchable(self, position: int) -> None:
        self._damaged.discard(position)
        self._searchable.values[position] = True

    def remove(self, row: int) -> None:
        position = self.position(row)
        self._damaged.discard(position)
        self._present.values[position] = False
        self._searchable.values[position] = False
        self._members.remove(int(self.identity[position]), position)
        self.crop_count -= 1

    def keep(self, mask: NDArray[np.bool_]) -> None:
        """Drops the positions where `mask` is False, and the names that nothing has then; the others move together."""
        for column in self._arrays():
            column.keep(mask)
        self._identities = self._identities.only_used(self.identity)
        self._cameras = self._cameras.only_used(self._camera.values)
        self._members = Members()
        named = np.flatnonzero(self.present)
        self._members.add(self.identity[named], named)
        self._damaged = set(named[~self.searchable[named]].tolist())

    def _arrays(self) -> tuple[Column[Any], ...]:
        numbers = (self._row, self._identity, self._camera, self._captured_at)
        return (*numbers, self._crop_id, self._present, self._searchable)

    def crc32(self, which: NDArray[np.int64]) -> int:
        """A checksum of the crops there, in this order: of rows, crop ids and whether the vector is damaged."""
        checksum = 0
        for column in (self._row, self._crop_id, self._searchable):
            checksum = zlib.crc32(column.values[which].tobytes(), checksum)
        return checksum

    def select(self, filters: Filters) -> NDArray[np.bool_]:
        """Which crops pass the filters: bool [n], damaged ones included, removed ones not."""
        mask = self.present.copy()
        camera, captured_at = self._camera.values, self._captured_at.values
        if filters.cameras:
            mask &= self._cameras.among(filters.cameras, camera)
        if filters.exclude_cameras:
            mask &= ~self._cameras.among(filters.exclude_cameras, camera)
        if filters.identities:
            mask &= self._identities.among(filters.identities, self.identity)
        if filters.exclude_identities:
            mask &= ~self._identities.among(filters.exclude_identities, self.identity)
        if filters.unidentified:
            mask &= self.identity == NOBODY
        if filters.since is not None:
            mask &= captured_at >= to_micros(filters.since)
        if filters.until is not None:
            mask &= (captured_at < to_micros(filters.until)) & (captured_at != NO_TIME)
        return mask

    def selection(self, filters: Filters) -> Selection:
        """What a query with these filters is compared with. Without filters it costs nothing."""
        if filters == Filters():
            count = self.crop_count - len(self._damaged)
            return Selection(None if count == len(self) else self.searchable, count, self._candidates())
        mask = self.select(filters) & self.searchable
        counts = np.bincount(self.identity[mask] + 1, minlength=1)
        return Selection(mask, int(counts.sum()), int(counts[0]) + int(np.count_nonzero(counts[1:])))

    def _candidates(self) -> int:
        """How many identities, and crops without one, have a crop that is searchable."""
        damaged = Counter(self.identity[list(self._damaged)].tolist())
        unnamed = self._members.unnamed - damaged.pop(NOBODY, 0)
        return unnamed + self._members.identities - sum(self._members.count(c) == n for c, n in damaged.items())


def _time(entry: Entry) -> int:
    return NO_TIME if entry.captured_at is None else entry.captured_at
