from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.training.figures.reading_back import title
from training.data.dataset import UNKNOWN_CAMERA, Sample
from training.figures.ranked import Hit, RankedList, count_matches, draw_ranked, nearest
from training.figures.style import RIGHT, WRONG


def sample(identity: int, camera: int) -> Sample:
    return Sample(f"{identity}_{camera}", identity, camera, 0, bytes)


def at(angles: Sequence[float]) -> NDArray[np.float32]:
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_the_nearest_come_first_and_the_same_camera_not_at_all() -> None:
    gallery = [sample(1, 1), sample(2, 1), sample(1, 2), sample(0, 3)]
    hits = nearest(sample(1, 1), at([0.0])[0], gallery, at([0.0, 0.2, 0.1, 3.0]))
    assert [(hit.index, hit.right) for hit in hits] == [(2, True), (1, False), (3, False)]
    assert [hit.distance for hit in hits] == pytest.approx(np.sin(np.array([0.1, 0.2, 3.0]) / 2), rel=1e-4)


def test_an_unknown_camera_is_no_camera() -> None:
    gallery = [sample(1, UNKNOWN_CAMERA), sample(2, UNKNOWN_CAMERA)]
    hits = nearest(sample(1, UNKNOWN_CAMERA), at([0.0])[0], gallery, at([0.1, 0.0]))
    assert [hit.index for hit in hits] == [1, 0]
    assert count_matches(sample(1, UNKNOWN_CAMERA), gallery) == 1


def test_matches_are_the_persons_pictures_by_other_cameras() -> None:
    gallery = [sample(1, 1), sample(2, 1), sample(1, 2), sample(1, 3), sample(0, 3)]
    assert [count_matches(sample(*query), gallery) for query in ((1, 1), (2, 1), (3, 1))] == [2, 0, 0]


def test_ten_answers_are_enough() -> None:
    gallery = [sample(n, 2) for n in range(1, 30)]
    hits = nearest(sample(1, 1), at([0.0])[0], gallery, at([0.01 * n for n in range(29)]))
    assert [hit.index for hit in hits] == list(range(10))


def test_right_and_wrong_differ_in_colour_and_sign() -> None:
    picture = np.zeros((8, 4, 3), np.uint8)
    answers = ((Hit(0, 0.25, True), picture), (Hit(1, 0.5, False), picture))
    figure = draw_ranked([RankedList("7, camera 1", picture, 1, answers)], "of a run")
    query, _, right, wrong, *rest = figure.get_axes()
    assert title(figure).startswith("of a run\n✓ green: the same person.")
    assert query.get_xlabel() == "7, camera 1\n1 match"
    assert [axes.get_xlabel() for axes in (right, wrong)] == ["✓ 0.25", "✗ 0.50"]
    assert right.spines["left"].get_edgecolor() != wrong.spines["left"].get_edgecolor()
    assert {RIGHT, WRONG} == {"#009E73", "#CC3311"}
    assert all(not axes.get_images() for axes in rest)
