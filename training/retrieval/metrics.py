"""CMC, mAP and mINP of a ranked gallery (Zheng et al., ICCV 2015; mINP: Ye et al., TPAMI 2021).

Protocol, per query: gallery crops of the same identity in the same camera, and junk (identity -1), are
left out; distractors (identity 0) stay and are always wrong. A query without a match in another camera
is not counted, only reported.

Nothing is sorted but a query's few positives: the rank of a positive is one more than the number of
kept crops before it, and those are counted. Equal distances keep the gallery's order, as in a stable sort.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

RANKS = 50
CHUNK_BYTES = 32 * 2**20  # of distances at a time

Distances = NDArray[np.floating[Any]]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class RankMetrics:
    """Retrieval figures, all in [0, 1]; means over the queries that have a match."""

    cmc: tuple[float, ...]  # [k - 1]: a match is among the first k, k = 1 ... 50
    mAP: float  # mean over matches of k / rank: what most papers print
    mAP_official: float  # area under the precision-recall curve by trapezoids: Market-1501's own code
    mINP: float  # matches / rank of the last one
    queries: int  # counted
    unmatched: int  # queries without a match, not counted

    def rank(self, k: int) -> float:
        """Share of queries with a match among the first k, 1 <= k <= 50."""
        if not 1 <= k <= RANKS:
            raise ValueError(f"ranks go from 1 to {RANKS}, not {k}")
        return self.cmc[k - 1]


@dataclass(frozen=True)
class LabelledPair:
    """Identities and cameras of queries and gallery, int64 [Q] and [G]."""

    query_identities: Labels
    query_cameras: Labels
    gallery_identities: Labels
    gallery_cameras: Labels

    @classmethod
    def of(
        cls,
        query_identities: ArrayLike,
        query_cameras: ArrayLike,
        gallery_identities: ArrayLike,
        gallery_cameras: ArrayLike,
    ) -> LabelledPair:
        """From anything array-like. Raises ValueError where identities and cameras differ in number."""
        arrays = [query_identities, query_cameras, gallery_identities, gallery_cameras]
        labels = cls(*(np.asarray(array, np.int64) for array in arrays))
        for side, a, b in (
            ("query", labels.query_identities, labels.query_cameras),
            ("gallery", labels.gallery_identities, labels.gallery_cameras),
        ):
            if a.ndim != 1 or a.shape != b.shape:
                raise ValueError(f"{side}: identities {a.shape} and cameras {b.shape} must be two equal lists")
        return labels


def rank_metrics(
    query: NDArray[np.float32],
    gallery: NDArray[np.float32],
    labels: LabelledPair,
) -> RankMetrics:
    """Rank by the cosine between embeddings, which ranks as Euclidean distance does on unit vectors.

    Args:
        query: embeddings [Q, D] of any length but zero.
        gallery: embeddings [G, D].
        labels: identities and cameras of both.

    Raises:
        ValueError: shapes disagree, an embedding is zero or not finite, or no query has a match.
    """
    query, gallery = np.asarray(query, np.float32), np.asarray(gallery, np.float32)
    if query.ndim != 2 or gallery.ndim != 2 or query.shape[1] != gallery.shape[1]:
        raise ValueError(f"query {query.shape} and gallery {gallery.shape} must be [Q, D] and [G, D]")
    _check_sizes(labels, query.shape[0], gallery.shape[0])
    lengths = _lengths("gallery", gallery)
    _lengths("query", query)
    rows = _cosine_distances(query, gallery, lengths)
    return _summarise(_ranks_of_matches(rows, labels))


def rank_metrics_of_distances(distances: Distances, labels: LabelledPair) -> RankMetrics:
    """The same for given distances [Q, G], smaller is nearer, for example after re-ranking.

    Raises:
        ValueError: shapes disagree, a distance is not finite, or no query has a match.
    """
    if distances.ndim != 2:
        raise ValueError(f"distances {distances.shape} must be [Q, G]")
    _check_sizes(labels, *distances.shape)
    return _summarise(_ranks_of_matches(_finite_rows(distances), labels))


def _finite_rows(distances: Distances) -> Iterator[Distances]:
    """Writable copies of the rows."""
    for index, row in enumerate(distances):
        if not np.isfinite(row).all():
            raise ValueError(f"distances of query {index} are not finite")
        yield row.astype(np.result_type(row, np.float32))


def _check_sizes(labels: LabelledPair, queries: int, gallery: int) -> None:
    for side, found, expected in (
        ("query", queries, len(labels.query_identities)),
        ("gallery", gallery, len(labels.gallery_identities)),
    ):
        if found != expected:
            raise ValueError(f"{side}: {found} rows, but labels for {expected}")


def _lengths(side: str, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """L2 norms [N]."""
    lengths: NDArray[np.float32] = np.sqrt(np.einsum("nd,nd->n", embeddings, embeddings))
    bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if bad.size:
        raise ValueError(f"{side}: embedding {bad[0]} is zero or not finite ({bad.size} of {len(lengths)} are)")
    return lengths


def _cosine_distances(
    query: NDArray[np.float32], gallery: NDArray[np.float32], lengths: NDArray[np.float32]
) -> Iterator[Distances]:
    """Rows [G] of negative cosines up to a factor of the row, which changes no ranking; writable."""
    chunk = max(1, CHUNK_BYTES // (4 * max(1, len(gallery))))
    scale = -1 / lengths
    products = np.empty((min(chunk, len(query)), len(gallery)), np.float32)
    for start in range(0, len(query), chunk):
        part = query[start : start + chunk]
        rows = np.matmul(part, gallery.T, out=products[: len(part)])
        rows *= scale
        yield from rows


def _ranks_of_matches(rows: Iterator[Distances], labels: LabelledPair) -> Iterator[NDArray[np.int64]]:
    """For each query the ascending ranks, from 1, of its matches; empty where it has none."""
    members = _members(labels.gallery_identities)
    junk = np.flatnonzero(labels.gallery_identities < 0)
    none = np.empty(0, np.int64)
    for row, identity, camera in zip(rows, labels.query_identities, labels.query_cameras, strict=True):
        own = members.get(int(identity), none) if identity > 0 else none
        same_camera = labels.gallery_cameras[own] == camera
        row[junk] = np.inf
        row[own[same_camera]] = np.inf
        yield _ranks(row, own[~same_camera])


def _members(identities: Labels) -> dict[int, NDArray[np.int64]]:
    """Ascending gallery indices of each identity."""
    order = np.argsort(identities, kind="stable")
    values, starts = np.unique(identities[order], return_index=True)
    return dict(zip(values.tolist(), np.split(order, starts[1:]), strict=True))


def _ranks(row: Distances, matches: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ranks of the gallery indices `matches` (ascending) in a row [G] whose left-out entries are infinite."""
    if not matches.size:
        return matches
    order = np.argsort(row[matches], kind="stable")
    matches = matches[order]
    ladder = row[matches]
    nearer = np.flatnonzero(row <= ladder[-1])
    values = row[nearer]
    # The step of an entry: how many matches come before it. Every match from that step on has it before or at it.
    steps = np.searchsorted(ladder, values, side="left")
    level = np.flatnonzero(ladder[steps] == values)
    if level.size > matches.size or (ladder[1:] == ladder[:-1]).any():
        ties, value = nearer[level, None], values[level, None]
        steps[level] = ((ladder < value) | ((ladder == value) & (matches < ties))).sum(axis=1)
    # An entry level with the last match but behind it has one step too many, and comes before none.
    return np.cumsum(np.bincount(steps, minlength=matches.size)[: matches.size])


def _summarise(ranks_of_queries: Iterator[NDArray[np.int64]]) -> RankMetrics:
    first = np.zeros(RANKS, np.int64)
    precision, official, inverse = [], [], []
    unmatched = 0
    for ranks in ranks_of_queries:
        if not ranks.size:
            unmatched += 1
            continue
        if ranks[0] <= RANKS:
            first[ranks[0] - 1] += 1
        found = np.arange(1, ranks.size + 1)
        here = found / ranks
        # Precision just before each match; before the first place it is 1, as in the official code.
        before = np.where(ranks == 1, 1.0, (found - 1) / np.maximum(ranks - 1, 1))
        precision.append(here.mean())
        official.append((here + before).mean() / 2)
        inverse.append(here[-1])
    if not precision:
        raise ValueError("no query has a match in another camera: nothing can be measured")
    return RankMetrics(
        cmc=tuple((np.cumsum(first) / len(precision)).tolist()),
        mAP=float(np.mean(precision)),
        mAP_official=float(np.mean(official)),
        mINP=float(np.mean(inverse)),
        queries=len(precision),
        unmatched=unmatched,
    )
