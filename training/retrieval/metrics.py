"""CMC, mAP and mINP of a ranked gallery (Zheng et al., ICCV 2015; mINP: Ye et al., TPAMI 2021).

Protocol, per query: gallery crops of the same identity in the same camera, and junk (identity -1), are
left out; distractors (identity 0) stay and are always wrong. An unknown camera equals no camera, so that nothing
is left out for it. A query without a match in another camera is not counted, only reported.

Nothing is sorted but a query's few positives: the rank of a positive is one more than the number of
kept crops before it, and those are counted. Equal distances keep the gallery's order, as in a stable sort.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from training.data.dataset import UNKNOWN_CAMERA

RANKS = 50
PRINTED_RANKS = (1, 5, 10, 20)
CHUNK_BYTES = 32 * 2**20  # of distances at a time

Distances = NDArray[np.floating[Any]]
Labels = NDArray[np.int64]


class NoMatch(ValueError):
    """No query has an answer that counts, so that nothing can be measured; the message says what removed them."""


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
        return rank_of(self.cmc, k)

    def figures(self) -> dict[str, float]:
        """What is printed and logged, by name: rank1, rank5, rank10, rank20, mAP, mAP_official, mINP."""
        ranks = {f"rank{k}": self.rank(k) for k in PRINTED_RANKS}
        return {**ranks, "mAP": self.mAP, "mAP_official": self.mAP_official, "mINP": self.mINP}


def rank_of(cmc: tuple[float, ...], k: int) -> float:
    """The share at rank k of a curve of 50. Raises ValueError for another rank."""
    if not 1 <= k <= RANKS:
        raise ValueError(f"ranks go from 1 to {RANKS}, not {k}")
    return cmc[k - 1]


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

    def answers(self) -> Iterator[tuple[Labels, Labels]]:
        """For each query the ascending gallery indices of its identity: those of its own camera, and its matches."""
        members = members_of(self.gallery_identities)
        nobody = np.empty(0, np.int64)
        for identity, camera in zip(self.query_identities.tolist(), self.query_cameras.tolist(), strict=True):
            own = members.get(identity, nobody) if identity > 0 else nobody
            same = (self.gallery_cameras[own] == camera) & (camera != UNKNOWN_CAMERA)
            yield own[same], own[~same]


def members_of(identities: Labels) -> dict[int, Labels]:
    """Ascending indices of each identity, by ascending identity."""
    order = np.argsort(identities, kind="stable")
    values, starts = np.unique(identities[order], return_index=True)
    return dict(zip(values.tolist(), np.split(order, starts[1:]), strict=True))


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
        NoMatch: no query has a match.
        ValueError: shapes disagree, or an embedding is zero or not finite.
    """
    for side, found, expected in (
        ("query", len(query), len(labels.query_identities)),
        ("gallery", len(gallery), len(labels.gallery_identities)),
    ):
        if found != expected:
            raise ValueError(f"{side}: {found} embeddings, but labels for {expected}")
    rows = cosine_distances(query, gallery)
    check_matches(labels)
    return _summarise(_ranks_of_matches(rows, labels))


def rank_metrics_of_distances(distances: Iterable[Distances], labels: LabelledPair) -> RankMetrics:
    """The same for given distances [Q, G], or its rows one after the other; smaller is nearer.

    Raises:
        NoMatch: no query has a match.
        ValueError: shapes disagree, or a distance is not finite.
    """
    check_matches(labels)
    return _summarise(_ranks_of_matches(finite_rows(distances, labels), labels))


def cosine_distances(query: NDArray[np.float32], gallery: NDArray[np.float32]) -> Iterator[Distances]:
    """Rows [G], one a query, of negative cosines up to a factor of the row, which changes no ranking.

    A row may be written to, and is overwritten by later ones.

    Raises:
        ValueError: not [Q, D] and [G, D], or an embedding is zero or not finite.
    """
    query, gallery = np.asarray(query, np.float32), np.asarray(gallery, np.float32)
    if query.ndim != 2 or gallery.ndim != 2 or query.shape[1] != gallery.shape[1]:
        raise ValueError(f"query {query.shape} and gallery {gallery.shape} must be [Q, D] and [G, D]")
    lengths_of("query", query)
    return _cosine_rows(query, gallery, lengths_of("gallery", gallery))


def finite_rows(distances: Iterable[Distances], labels: LabelledPair) -> Iterator[Distances]:
    """Writable copies of the rows of [Q, G]. Raises ValueError where they are not that, or not finite."""
    queries, gallery = len(labels.query_identities), len(labels.gallery_identities)
    count = 0
    for row in distances:
        if row.shape != (gallery,) or count == queries:
            raise ValueError(f"distances: a row {row.shape} after {count}, but labels for {queries} rows of {gallery}")
        if not np.isfinite(row).all():
            raise ValueError(f"distances of query {count} are not finite")
        count += 1
        yield row.astype(np.result_type(row, np.float32))
    if count < queries:
        raise ValueError(f"distances: {count} rows, but labels for {queries}")


def check_matches(labels: LabelledPair) -> None:
    """Raises NoMatch unless some query has a match."""
    for labelled, none in (
        (labels.query_identities, "none of these pictures is a query, so that nobody asks"),
        (labels.gallery_identities, "none of these pictures is in the gallery, so that nobody answers"),
    ):
        if not labelled.size:
            raise NoMatch(f"{none}: take more cameras, or more pictures of each person")
    seen = False
    for same_camera, matches in labels.answers():
        if matches.size:
            return
        seen = seen or bool(same_camera.size)
    if seen:
        raise NoMatch(
            "no query has a match in another camera, only in its own: --ignore-cameras measures with those too"
        )
    raise NoMatch("no query has a match: none of their identities is in the gallery")


def lengths_of(side: str, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """L2 norms [N] of embeddings [N, D]. Raises ValueError, naming the side, where one is zero or not finite."""
    lengths: NDArray[np.float32] = np.sqrt(np.einsum("nd,nd->n", embeddings, embeddings))
    bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if bad.size:
        raise ValueError(f"{side}: embedding {bad[0]} is zero or not finite ({bad.size} of {len(lengths)} are)")
    return lengths


def _cosine_rows(
    query: NDArray[np.float32], gallery: NDArray[np.float32], lengths: NDArray[np.float32]
) -> Iterator[Distances]:
    chunk = max(1, CHUNK_BYTES // (4 * max(1, len(gallery))))
    scale = -1 / lengths
    products = np.empty((min(chunk, len(query)), len(gallery)), np.float32)
    for start in range(0, len(query), chunk):
        part = query[start : start + chunk]
        rows = np.matmul(part, gallery.T, out=products[: len(part)])
        rows *= scale
        yield from rows


def _ranks_of_matches(rows: Iterator[Distances], labels: LabelledPair) -> Iterator[Labels]:
    """For each query the ascending ranks, from 1, of its matches; empty where it has none."""
    junk = np.flatnonzero(labels.gallery_identities < 0)
    for row, (same_camera, matches) in zip(rows, labels.answers(), strict=True):
        row[junk] = np.inf
        row[same_camera] = np.inf
        yield _ranks(row, matches)


def _ranks(row: Distances, matches: Labels) -> Labels:
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


def _summarise(ranks_of_queries: Iterator[Labels]) -> RankMetrics:
    """The means over the queries that have a match; there is one at least."""
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
    return RankMetrics(
        cmc=tuple((np.cumsum(first) / len(precision)).tolist()),
        mAP=float(np.mean(precision)),
        mAP_official=float(np.mean(official)),
        mINP=float(np.mean(inverse)),
        queries=len(precision),
        unmatched=unmatched,
    )
