"""Ranking metrics from embeddings, against what the field does: `python -m benchmarks.ranking`.

Every contender computes the matrix product and CMC and mAP on the problem's size of Market-1501: ours, which
counts; a vectorised one, which sorts a chunk of queries at a time; and the usual loop over a sorted matrix of
torchreid, fast-reid and their descendants. About two minutes a round with the loop.
"""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

from benchmarks.contest import Aims, Contender, Figures, Problem, main
from training.retrieval.metrics import rank_metrics

CHUNK = 256  # queries that are sorted at once


def counting(problem: Problem) -> Figures:
    """Ours."""
    metrics = rank_metrics(problem.query, problem.gallery, problem.labels)
    return metrics.rank(1), metrics.mAP


def vectorised_argsort(problem: Problem) -> Figures:
    """Sorted a chunk at a time, everything else in whole arrays."""
    labels, firsts, precisions = problem.labels, [], []
    for start in range(0, len(problem.query), CHUNK):
        part = slice(start, start + CHUNK)
        distances = -(problem.query[part] @ problem.gallery.T)
        order = np.argsort(distances, axis=1)
        identity = labels.query_identities[part, None]
        same = (labels.gallery_identities[order] == identity) & (identity > 0)
        removed = same & (labels.gallery_cameras[order] == labels.query_cameras[part, None])
        hits = same & ~removed
        places = np.cumsum(~removed, axis=1)
        found = np.cumsum(hits, axis=1)
        matches = found[:, -1]
        counted = matches > 0
        precision = np.where(hits, found / np.maximum(places, 1), 0).sum(axis=1)
        precisions.append(precision[counted] / matches[counted])
        firsts.append((hits & (places == 1)).any(axis=1)[counted])
    return float(np.concatenate(firsts).mean()), float(np.concatenate(precisions).mean())


def python_loop(problem: Problem) -> Figures:
    """One query after the other over the sorted matrix, precision by a list comprehension."""
    distances = -(problem.query @ problem.gallery.T)
    return loop_over_sorted(distances, problem)


def loop_over_sorted(distances: NDArray[np.floating], problem: Problem) -> Figures:
    """Rank-1 and mAP of distances [Q, G] by the usual loop."""
    labels, firsts, precisions = problem.labels, [], []
    order = np.argsort(distances, axis=1)
    for query, ranked in enumerate(order):
        identity, camera = labels.query_identities[query], labels.query_cameras[query]
        same = labels.gallery_identities[ranked] == identity
        hits = same[~(same & (labels.gallery_cameras[ranked] == camera))]
        if not hits.any():
            continue
        firsts.append(hits[0])
        # Divided as they all do, one NumPy integer after the other by a Python float.
        found = [count / (place + 1.0) for place, count in enumerate(hits.cumsum())]
        precisions.append((np.asarray(found) * hits).sum() / hits.sum())
    return float(np.mean(firsts)), float(np.mean(precisions))


CONTENDERS: dict[str, Contender] = {
    "counting (ours)": counting,
    "vectorised argsort": vectorised_argsort,
    "python loop": python_loop,
}
AIMS = Aims(seconds=3.5, megabytes=300, faster={"vectorised argsort": 1.3, "python loop": 15})


if __name__ == "__main__":
    sys.exit(main("ranking metrics", CONTENDERS, AIMS, __doc__, None))
