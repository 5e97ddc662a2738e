"""From embeddings to ranked identities: several shots -> one query, crops -> identities, the verdict.

Distance is `‖a − b‖₂ / 2` on unit vectors, in [0, 1]. An identity is as far as its nearest crop; a crop
without identity is a candidate of its own. Equal distances are ordered by crop_id.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.gallery.finding import Found, Positions
from service.gallery.records import InvalidEmbedding, Verdict

FALSE_MATCHES_PER_QUERY = 0.01  # the chance of a false match that a verdict allows, over all identities searched
MARGIN = 0.02  # how much farther the second identity must be for an unambiguous match
FIRST_FETCH = 512  # candidates fetched at once: hardly dearer than ten
GROWTH = 4  # each further fetch may search the gallery again: grow fast
FLOAT16_NORM_ERROR = 5e-4  # how far rounding to float16 moves a norm of 1, at most (2 ** -11)


class Searched(Protocol):
    """The gallery as ranking needs it."""

    @property
    def identity(self) -> NDArray[np.int32]:
        """Codes [n], negative for a crop without identity."""

    @property
    def crop_id(self) -> NDArray[np.bytes_]: ...

    def members(self, codes: NDArray[np.int64]) -> Positions:
        """The positions of all crops of these identities."""


Measure = Callable[[Positions], NDArray[np.float32]]  # squared distances of the query to these positions


@dataclass(frozen=True)
class Candidates:
    """Crops by candidate: those of candidate i are `positions[starts[i]:starts[i + 1]]`, nearest first.

    Candidates ascend by the distance of their nearest crop. `starts` has one entry more than candidates.
    """

    positions: Positions
    distances: NDArray[np.float32]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def nearest(self, candidate: int) -> np.float32:
        """The distance of a candidate, that of its nearest crop."""
        distance: np.float32 = self.distances[self.starts[candidate]]
        return distance

    def crops(self, candidate: int) -> tuple[Positions, NDArray[np.float32]]:
        """The positions and distances of its crops, nearest first."""
        part = slice(self.starts[candidate], self.starts[candidate + 1])
        return self.positions[part], self.distances[part]


@dataclass(frozen=True)
class ImpostorCurve:
    """The distance under which a share `false_match_rate` of impostor pairs lies, at a few rates.

    Rates and distances are aligned, in any order. Raises ValueError for a curve that is none.
    """

    false_match_rate: tuple[float, ...]
    distance: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.false_match_rate) != len(self.distance):
            raise ValueError("an impostor curve needs one distance for every rate")
        points = sorted(zip(self.false_match_rate, self.distance, strict=True))
        rates, distances = np.array(points, np.float64).reshape(-1, 2).T
        if not points or not np.all((rates > 0) & (rates <= 1) & (distances >= 0) & (distances <= 1)):
            raise ValueError("an impostor curve needs rates in (0, 1] and distances in [0, 1]")
        if np.any(np.diff(rates) <= 0) or np.any(np.diff(distances) < 0):
            raise ValueError("an impostor curve needs distances that grow with the false-match rate")

    def distance_at(self, rate: float) -> float:
        """The distance at `rate` > 0: linear in log10(rate) between points, that of the highest rate above it.

        Below the lowest rate the last segment goes on, down to 0. Where there is none, or a flat one, nothing says
        how much nearer rarer impostors come: 0, which no distance is under.
        """
        points = sorted(zip(self.false_match_rate, self.distance, strict=True))
        rates, distances = np.array(points, np.float64).T
        decades, decade = np.log10(rates), np.log10(rate)
        if decade >= decades[0]:
            return float(np.interp(decade, decades, distances))
        if len(points) == 1 or distances[0] == distances[1]:
            return 0.0
        slope = (distances[1] - distances[0]) / (decades[1] - decades[0])
        return max(0.0, float(distances[0] - slope * (decades[0] - decade)))


def stored_form(embedding: NDArray[np.float32], dim: int) -> NDArray[np.float16]:
    """The embedding [D] at unit length, rounded to float16. Raises InvalidEmbedding.

    What is of unit length already, as far as float16 can tell, is only rounded: so a stored embedding is
    its own stored form.
    """
    if embedding.shape != (dim,):
        raise InvalidEmbedding(f"An embedding of this gallery's model has {dim} numbers.")
    vector = embedding.astype(np.float64)
    if not np.all(np.isfinite(vector)):
        raise InvalidEmbedding("An embedding must hold finite numbers only.")
    norm = np.linalg.norm(vector)
    if not 0 < norm < np.inf:
        raise InvalidEmbedding("An embedding must not be zero: it has no direction.")
    if abs(norm - 1) > FLOAT16_NORM_ERROR:
        vector /= norm
    return vector.astype(np.float16)


def combine(embeddings: NDArray[np.float32], dim: int) -> NDArray[np.float32]:
    """Several shots [M, D] of one person -> one query [D]: their normalised mean, rounded as what is stored.

    Raises InvalidEmbedding for shots of another size, not finite or zero, and when they cancel out.
    """
    if embeddings.ndim != 2 or not len(embeddings):
        raise InvalidEmbedding("A query needs at least one embedding.")
    if len(embeddings) == 1:
        return stored_form(embeddings[0], dim).astype(np.float32)
    shots = np.stack([stored_form(embedding, dim) for embedding in embeddings]).astype(np.float32)
    mean = shots.mean(axis=0, dtype=np.float64).astype(np.float32)
    return stored_form(mean, dim).astype(np.float32)


def rank(
    found: Found, measure: Measure, searched: Searched, mask: NDArray[np.bool_] | None, total: int, top_k: int
) -> Candidates:
    """At least the `top_k` nearest candidates among the `total` positions in `mask` [n], each with all of its crops.

    As exact as `found` is, which decides only what is measured; order and distances come from the measuring. None
    for `mask` stands for everything.
    """
    if not total:
        return Candidates(np.empty(0, np.int64), np.empty(0, np.float32), np.zeros(1, np.int64))
    nearest = _nearest_groups(found, searched.identity, total, top_k)
    positions = np.concatenate([searched.members(nearest[nearest >= 0]), -1 - nearest[nearest < 0]])
    if mask is not None:
        positions = positions[mask[positions]]
    distances = np.minimum(np.sqrt(measure(positions)) / np.float32(2), np.float32(1))
    order = np.lexsort((searched.crop_id[positions], distances))
    positions = positions[order]
    return _by_candidate(positions, distances[order], _groups(searched.identity, positions))


def _groups(identity: NDArray[np.int32], positions: Positions) -> NDArray[np.int64]:
    """Positions -> candidates: an identity's code, or -1 - position for a crop without one."""
    codes = identity[positions].astype(np.int64)
    return np.where(codes >= 0, codes, -1 - positions)


def _nearest_groups(found: Found, identity: NDArray[np.int32], total: int, top_k: int) -> NDArray[np.int64]:
    """A set of candidates that surely holds the `top_k` nearest, and ties with the last of them.

    Let S be the squared distance that was found for the top_k-th candidate. What was found is wrong by `found.error`
    at most, so a candidate whose true distance is among the top_k has one found below S plus twice that. Fetch until
    what was found goes beyond it.
    """
    k = max(FIRST_FETCH, 2 * top_k)
    while True:
        positions, squared = found.nearest(k)
        names, first = np.unique(_groups(identity, positions), return_index=True)
        by_distance = np.sort(first)
        bound = float(squared[by_distance[top_k - 1]]) + 2 * found.error if len(names) >= top_k else np.inf
        if len(positions) >= total or squared[-1] > bound:
            return names[squared[first] <= bound]
        k *= GROWTH


def _by_candidate(positions: Positions, distances: NDArray[np.float32], groups: Positions) -> Candidates:
    """Crops in ascending order -> the same by candidate, in the order of each one's first crop."""
    _, first, inverse, counts = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    crops = np.argsort(place[inverse], kind="stable")
    starts = np.concatenate([[0], np.cumsum(counts[order])])
    return Candidates(positions[crops], distances[crops], starts)


def match_distance(curve: ImpostorCurve | None, override: float | None, candidates: int) -> np.float32 | None:
    """The distance under which the nearest of so many candidates counts as a match; None if unknown.

    Rounded here, once, to the float32 that distances are: so verdict and support never disagree about a crop.
    """
    if override is not None:
        return np.float32(override)
    if curve is None:
        return None
    return np.float32(curve.distance_at(FALSE_MATCHES_PER_QUERY / max(candidates, 1)))


def verdict(candidates: Candidates, match_below: np.float32 | None) -> Verdict | None:
    """What the two nearest candidates mean, None when no match distance is known.

    The second makes a match ambiguous whether or not it has an identity: it may be another person.
    """
    if match_below is None:
        return None
    if not len(candidates) or candidates.nearest(0) >= match_below:
        return "unknown"
    if len(candidates) > 1 and float(candidates.nearest(1)) - float(candidates.nearest(0)) < MARGIN:
        return "ambiguous"
    return "match"
