"""Which crops an identity has: positions by identity, so that no answer goes through the whole gallery for them."""

from __future__ import annotations

from array import array

import numpy as np
from numpy.typing import NDArray

from service.gallery.growing import Column

NOBODY = -1  # the code of "no identity" and of "no camera"


class Members:
    """The positions of each identity's crops; `unnamed` counts crops without identity. Not thread-safe."""

    def __init__(self) -> None:
        self.unnamed = 0
        self._positions: dict[int, array[int]] = {}
        self._places = Column(np.int32)  # of every position, in those of its identity: found without a search

    @property
    def identities(self) -> int:
        """How many identities have a crop."""
        return len(self._positions)

    def add(self, codes: NDArray[np.int32], positions: NDArray[np.int64]) -> None:
        """Counts in crops of these identities [n] at these positions [n]."""
        if not len(codes):
            return  # which would be split into one empty part
        order = np.argsort(codes, kind="stable")
        ordered, where = codes[order], positions[order].astype(np.int64, copy=False)
        starts = np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1))
        changed = ordered[starts].tolist()
        behind = np.array([self.count(code) for code in changed]) - starts
        missing = int(where.max()) + 1 - len(self._places.values)
        self._places.extend(np.zeros(max(missing, 0), np.int32))
        self._places.values[where] = np.arange(len(where)) + np.repeat(behind, np.diff(starts, append=len(where)))
        for code, part in zip(changed, np.split(where, starts[1:]), strict=True):
            if code == NOBODY:
                self.unnamed += len(part)
            else:
                self._positions.setdefault(code, array("q")).frombytes(part.tobytes())

    def remove(self, code: int, position: int) -> None:
        """Counts one crop out."""
        if code == NOBODY:
            self.unnamed -= 1
            return
        positions, place = self._positions[code], int(self._places.values[position])
        last = positions.pop()
        if last != position:
            positions[place] = last
            self._places.values[last] = place
        if not positions:
            del self._positions[code]

    def count(self, code: int) -> int:
        """How many crops the identity has."""
        return len(self._positions.get(code, ()))

    def of(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """The positions of all crops of these identities, in no order."""
        parts = [self._positions[code] for code in codes.tolist()]
        return np.concatenate([np.empty(0, np.int64), *(np.frombuffer(part, np.int64) for part in parts)])
