"""Where a model fails: queries of one camera against the gallery of another, for every pair."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.retrieval.metrics import LabelledPair, NoMatch, RankMetrics, rank_metrics


@dataclass(frozen=True)
class CameraPairs:
    """A row a camera of queries, a column a camera of the gallery; None where no query has a match."""

    query_cameras: tuple[int, ...]
    gallery_cameras: tuple[int, ...]
    rank1: tuple[tuple[float | None, ...], ...]  # in [0, 1]
    mAP: tuple[tuple[float | None, ...], ...]  # in [0, 1], step
    queries: tuple[tuple[int, ...], ...]  # that have a match there, and are counted


def camera_pairs(query: NDArray[np.float32], gallery: NDArray[np.float32], labels: LabelledPair) -> CameraPairs:
    """Rank-1 and mAP of the queries of each camera among the crops of each camera alone, distractors included.

    Args:
        query: embeddings [Q, D] of any length but zero.
        gallery: embeddings [G, D].
        labels: identities and cameras of both; crops of an unknown camera are a row and a column of their own.

    Raises:
        ValueError: shapes disagree, or an embedding is zero or not finite.
    """
    asking, answering = np.unique(labels.query_cameras), np.unique(labels.gallery_cameras)
    columns = []
    for camera in answering:
        among = labels.gallery_cameras == camera
        crops = gallery[among]
        columns.append([_measure(query, crops, labels, labels.query_cameras == own, among) for own in asking])
    rows = list(zip(*columns, strict=True))
    return CameraPairs(
        query_cameras=tuple(asking.tolist()),
        gallery_cameras=tuple(answering.tolist()),
        rank1=tuple(tuple(found and found.rank(1) for found in row) for row in rows),
        mAP=tuple(tuple(found and found.mAP for found in row) for row in rows),
        queries=tuple(tuple(found.queries if found else 0 for found in row) for row in rows),
    )


def _measure(
    query: NDArray[np.float32],
    crops: NDArray[np.float32],
    labels: LabelledPair,
    asks: NDArray[np.bool_],
    answers: NDArray[np.bool_],
) -> RankMetrics | None:
    """The queries where `asks` [Q] among `crops`, which are the gallery where `answers` [G]."""
    part = LabelledPair(
        labels.query_identities[asks],
        labels.query_cameras[asks],
        labels.gallery_identities[answers],
        labels.gallery_cameras[answers],
    )
    try:
        return rank_metrics(query[asks], crops, part)
    except NoMatch:
        return None
