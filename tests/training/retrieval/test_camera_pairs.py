"""The breakdown by cameras against the standard metric on a gallery that was cut by hand."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from numpy.random import default_rng

from training.data.dataset import UNKNOWN_CAMERA
from training.retrieval.camera_pairs import camera_pairs
from training.retrieval.metrics import LabelledPair, NoMatch, rank_metrics_of_distances


@pytest.mark.parametrize("seed", range(20))
def test_every_pair_is_the_standard_metric_of_its_part(seed: int) -> None:
    random = default_rng(seed)
    labels = LabelledPair.of(
        random.integers(1, 6, 15),
        random.choice([UNKNOWN_CAMERA, 1, 2, 3], 15),
        random.integers(-1, 6, 40),
        random.choice([UNKNOWN_CAMERA, 1, 2, 3], 40),
    )
    query, gallery = random.standard_normal((15, 8), np.float32), random.standard_normal((40, 8), np.float32)
    gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    found = camera_pairs(query, gallery, labels)
    assert found.query_cameras == tuple(sorted(set(labels.query_cameras.tolist())))
    assert found.gallery_cameras == tuple(sorted(set(labels.gallery_cameras.tolist())))
    distances = -(query @ gallery.T)
    empty = 0
    for i, asking in enumerate(found.query_cameras):
        for j, answering in enumerate(found.gallery_cameras):
            rows = [q for q in range(15) if labels.query_cameras[q] == asking]
            columns = [g for g in range(40) if labels.gallery_cameras[g] == answering]
            part = LabelledPair.of(
                labels.query_identities[rows],
                [asking] * len(rows),
                labels.gallery_identities[columns],
                [answering] * len(columns),
            )
            try:
                expected = rank_metrics_of_distances(distances[np.ix_(rows, columns)], part)
            except NoMatch:
                assert (found.rank1[i][j], found.mAP[i][j], found.queries[i][j]) == (None, None, 0)
                empty += 1
                continue
            assert found.rank1[i][j] == pytest.approx(expected.rank(1))
            assert found.mAP[i][j] == pytest.approx(expected.mAP)
            assert found.queries[i][j] == expected.queries
    known = set(found.query_cameras) & set(found.gallery_cameras) - {UNKNOWN_CAMERA}
    assert empty >= len(known)  # a camera against itself


def test_it_is_json() -> None:
    labels = LabelledPair.of([1], [1], [1, 1], [1, 2])
    values = json.loads(
        json.dumps(asdict(camera_pairs(np.ones((1, 2), np.float32), np.ones((2, 2), np.float32), labels)))
    )
    assert values["rank1"] == [[None, 1.0]]
    assert values["queries"] == [[0, 1]]
