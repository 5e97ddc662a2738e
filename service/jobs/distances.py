"""How far apart labelled crops lie: strangers and the same person, counted in bins, with an error that is honest.

Pairs that share a person are not independent, so the error is not that of as many pairs: people are divided into
groups, and what the figure does when each group is left out says how sure it is (delete-a-group jackknife).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GROUPS = 20
BINS = 2**16  # of the distance in [0, 1]: finer than anybody sets it
BLOCK = 1024  # crops compared with as many at a time
MEASURED_PAIRS = 10  # a quantile with fewer pairs below it is a matter of luck

Counts = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Labelled:
    """Unit vectors float32 [n, D], and codes for who [n] and which camera [n] (-1: not known)."""

    vectors: NDArray[np.float32]
    identity: NDArray[np.int64]
    camera: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs by distance [BINS]: of strangers in all, of strangers with each group of people left out [G, BINS], of the
    same person, and of those the ones that two known cameras saw."""

    strangers: Counts
    without_group: NDArray[np.int64]
    same: Counts
    across_cameras: Counts


@dataclass(frozen=True)
class Quantile:
    """The distance under which a share of the pairs lies, its 95 % interval, and whether it lies below all data."""

    distance: float
    low: float
    high: float
    extrapolated: bool


def count_pairs(labelled: Labelled) -> Pairs:
    """Compares every crop with every other, each pair once."""
    _, person = np.unique(labelled.identity, return_inverse=True)
    groups = min(GROUPS, int(person.max(initial=0)) + 1)
    order = np.argsort(person % groups, kind="stable")
    ordered = Labelled(labelled.vectors[order], person[order], labelled.camera[order])
    bounds = np.searchsorted((person % groups)[order], np.arange(groups + 1))
    strangers, same, across = (np.zeros(BINS, np.int64) for _ in range(3))
    involved = np.zeros((groups, BINS), np.int64)
    for one in range(groups):
        for other in range(one, groups):
            rows, columns = (slice(bounds[g], bounds[g + 1]) for g in (one, other))
            for first, second in _blocks(rows, columns):
                counted = _compared(ordered, first, second)
                strangers += counted[0]
                same += counted[1]
                across += counted[2]
                for group in {one, other}:
                    involved[group] += counted[0]
    return Pairs(strangers, strangers - involved, same, across)


def _compared(crops: Labelled, first: slice, second: slice) -> tuple[Counts, Counts, Counts]:
    """The pairs of two blocks, each once: of strangers, of the same person, and of that one under two cameras."""
    bins = _bins(crops.vectors[first], crops.vectors[second])
    once = np.arange(first.start, first.stop)[:, None] < np.arange(second.start, second.stop)
    alike = crops.identity[first, None] == crops.identity[None, second]
    one, other = crops.camera[first, None], crops.camera[None, second]
    apart = (one != other) & (one >= 0) & (other >= 0)
    kinds = (once & ~alike, once & alike, once & alike & apart)
    strangers, same, across = (np.bincount(bins[kind], minlength=BINS) for kind in kinds)
    return strangers, same, across


def _blocks(rows: slice, columns: slice) -> list[tuple[slice, slice]]:
    return [(first, second) for first in _cut(rows) for second in _cut(columns)]


def _cut(whole: slice) -> list[slice]:
    return [slice(start, min(start + BLOCK, whole.stop)) for start in range(whole.start, whole.stop, BLOCK)]


def _bins(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.int64]:
    """The bin of each distance: ‖a − b‖² = 2 − 2 cos, and the distance is half of ‖a − b‖."""
    distances = np.sqrt(np.clip((1 - one @ other.T) / 2, 0, 1))
    return np.minimum((distances * BINS).astype(np.int64), BINS - 1)


def quantile(pairs: Pairs, rate: float) -> Quantile:
    """The distance under which a share `rate` of the strangers' pairs lies.

    Where fewer than 10 pairs do, it is extrapolated on the line in log10(rate) through the rates of 10 and of 100
    pairs, as in a model's impostor curve; for a tail like the normal distribution's that errs to the strict side.
    """
    distance, extrapolated = _quantile(pairs.strangers, rate)
    groups = len(pairs.without_group)
    without = np.array([_quantile(counts, rate)[0] for counts in pairs.without_group])
    error = np.sqrt((groups - 1) / groups * np.sum((without - without.mean()) ** 2))
    reach = float(_student(groups - 1) * error)
    return Quantile(distance, max(0.0, distance - reach), min(1.0, distance + reach), extrapolated)


def share_below(counts: Counts, distance: float) -> float | None:
    """The share of the pairs under `distance`; None where there are no pairs."""
    total = int(counts.sum())
    return None if not total else float(counts[: int(distance * BINS)].sum() / total)


def _quantile(counts: Counts, rate: float) -> tuple[float, bool]:
    below = np.cumsum(counts)
    total = int(below[-1])
    if total <= MEASURED_PAIRS:
        return 0.0, True
    if rate * total >= MEASURED_PAIRS:
        return _edge(below, rate * total), False
    some, more = MEASURED_PAIRS, min(10 * MEASURED_PAIRS, total // 2)
    near, far = _edge(below, some), _edge(below, more)
    slope = (far - near) / np.log10(more / some) if more > some else 0.0
    return max(0.0, float(near - slope * np.log10(some / (rate * total)))), True


def _edge(below: Counts, pairs: float) -> float:
    """The distance under which no more than so many pairs lie: the lower edge of the bin that has the next one."""
    return float(np.searchsorted(below, pairs, side="right")) / BINS


def _student(freedom: int) -> float:
    """Student's t at 97.5 %, by its expansion around the normal quantile: good to 2 % from 4 degrees of freedom on."""
    z = 1.959964
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
