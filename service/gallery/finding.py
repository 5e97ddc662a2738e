"""Ways to find the crops near a query, all of one form: the k nearest positions and how far they are, for growing k.

What finds decides only which candidates are measured; the distances of an answer are always measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.gallery.vectors import Vectors

Positions = NDArray[np.int64]
UNIT_ROUNDOFF = 2.0**-24  # float32


class Found(Protocol):
    """The crops near one query, among those that its filters let through."""

    @property
    def error(self) -> float:
        """How far a squared distance from `nearest` may be from the true one."""

    @property
    def exact(self) -> bool:
        """Whether `nearest` misses nothing."""

    def nearest(self, k: int) -> tuple[Positions, NDArray[np.float32]]:
        """The k nearest positions, or all when there are fewer, and their squared distances, ascending."""


@dataclass(frozen=True, eq=False)
class Compared:
    """The query was compared with these positions already, or with all where `positions` is None.

    `squared` [n] are the squared distances, infinite for what does not count.
    """

    positions: Positions | None
    squared: NDArray[np.float32]
    count: int
    error: float
    exact = True

    def nearest(self, k: int) -> tuple[Positions, NDArray[np.float32]]:
        k = min(k, self.count)
        if k < len(self.squared):
            near = np.argpartition(self.squared, k)[:k]
            near = near[np.argsort(self.squared[near])]
        else:
            near = np.argsort(self.squared)
        return (near if self.positions is None else self.positions[near]), self.squared[near]


@dataclass(frozen=True, eq=False)
class Scanned:
    """Goes over the vectors anew each time: the fastest way for a single query."""

    vectors: Vectors
    query: NDArray[np.float32]
    mask: NDArray[np.bool_] | None
    exact = True

    @property
    def error(self) -> float:
        return sums_error(self.vectors.dim) if self.vectors.scanned else products_error(self.vectors.dim)

    def nearest(self, k: int) -> tuple[Positions, NDArray[np.float32]]:
        if self.vectors.scanned:
            return self.vectors.search(self.query, min(k, len(self.vectors)), self.mask)
        (compared,) = compare_all(self.vectors, self.query[np.newaxis], [self.mask])
        return compared.nearest(k)


def compare_all(
    vectors: Vectors, queries: NDArray[np.float32], masks: list[NDArray[np.bool_] | None]
) -> list[Compared]:
    """Compares queries [m, D] with all vectors at once; mask [n] says what counts for each, None: everything."""
    found = []
    for squared, mask in zip(vectors.compare(queries), masks, strict=True):
        if mask is not None:
            squared[~mask] = np.inf
        count = len(squared) if mask is None else int(np.count_nonzero(mask))
        found.append(Compared(None, squared, count, products_error(vectors.dim)))
    return found


def products_error(dim: int) -> float:
    """The most by which |a|² + |b|² - 2ab of vectors of length one is wrong: three float32 sums of D products."""
    return (4 * dim + 16) * UNIT_ROUNDOFF


def sums_error(dim: int) -> float:
    """The most by which a float32 sum of D squares, in [0, 4] up to rounding, is wrong."""
    return 4 * (dim + 4) * UNIT_ROUNDOFF
