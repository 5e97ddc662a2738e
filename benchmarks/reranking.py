"""k-reciprocal re-ranking, sparse against dense: `python -m benchmarks.reranking`.

Both compute the re-ranked distances and the metrics on them, on the problem's size of Market-1501 or, with
`--embeddings FOLDER --data market1501`, on what `training/evaluate.py --save FOLDER` wrote. The dense form holds
matrices of all pairs, as the authors' code and its descendants do: 10 GB and more at that size.
"""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

from benchmarks.contest import Aims, Contender, Figures, Problem, main
from training.retrieval.metrics import RankMetrics, rank_metrics_of_distances
from training.retrieval.rerank import PAPER, reranked_distances


def sparse(problem: Problem) -> Figures:
    """Ours."""
    return _figures(rank_metrics_of_distances(reranked_distances(problem.query, problem.gallery), problem.labels))


def dense(problem: Problem) -> Figures:
    """Every matrix written out, pictures one after the other."""
    queries = len(problem.query)
    pictures = np.concatenate([problem.query, problem.gallery])
    original = np.maximum(2 - 2 * (pictures @ pictures.T), 0)
    original /= original.max(axis=1, keepdims=True)
    order = np.argsort(original, axis=1).astype(np.int32)
    described = _described(original, order)
    original = original[:queries, queries:].copy()
    described = np.stack([described[near].mean(axis=0) for near in order[:, : PAPER.k2]])
    final = PAPER.original * original + (1 - PAPER.original) * _jaccard(described, queries)
    return _figures(rank_metrics_of_distances(final, problem.labels))


def _reciprocal(order: NDArray[np.int32], picture: int, k: int) -> NDArray[np.int32]:
    near = order[picture, : k + 1]
    kept: NDArray[np.int32] = near[(order[near, : k + 1] == picture).any(axis=1)]
    return kept


def _described(original: NDArray[np.float32], order: NDArray[np.int32]) -> NDArray[np.float32]:
    """The weighted neighbourhood of every picture, [N, N]."""
    described = np.zeros_like(original)
    for picture in range(len(order)):
        members = _reciprocal(order, picture, PAPER.k1)
        expanded = [members]
        for member in members:
            core = _reciprocal(order, member, int(np.around(PAPER.k1 / 2)))
            if np.isin(core, members).sum() > 2 / 3 * len(core):
                expanded.append(core)
        chosen = np.unique(np.concatenate(expanded))
        weights = np.exp(-original[picture, chosen])
        described[picture, chosen] = weights / weights.sum()
    return described


def _jaccard(described: NDArray[np.float32], queries: int) -> NDArray[np.float32]:
    """Jaccard distances [Q, G], through the list of who is described by a picture."""
    described_by = [np.flatnonzero(column) for column in described.T]
    distances = np.empty((queries, len(described) - queries), np.float32)
    for query in range(queries):
        shared = np.zeros(len(described), np.float32)
        for member in np.flatnonzero(described[query]):
            others = described_by[member]
            shared[others] += np.minimum(described[query, member], described[others, member])
        distances[query] = (1 - shared / (2 - shared))[queries:]
    return distances


def _figures(metrics: RankMetrics) -> Figures:
    return metrics.rank(1), metrics.mAP


CONTENDERS: dict[str, Contender] = {"sparse (ours)": sparse, "dense": dense}
# Sums of float32 in another order: two pictures whose distances differ by less may change places.
AIMS = Aims(megabytes=1000, faster={"dense": 1}, agreement=1e-5)


if __name__ == "__main__":
    sys.exit(main("k-reciprocal re-ranking", CONTENDERS, AIMS, __doc__, None))
