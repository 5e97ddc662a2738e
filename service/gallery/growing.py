"""Arrays that grow."""

from __future__ import annotations

from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

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
