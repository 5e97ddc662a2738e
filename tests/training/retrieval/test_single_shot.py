"""The single-gallery-shot metric against every possible draw, and against the standard metric."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

from training.data.dataset import UNKNOWN_CAMERA
from training.retrieval.metrics import LabelledPair, NoMatch, rank_metrics_of_distances
from training.retrieval.single_shot import REPEATS, SingleShot, single_gallery_shot


def every_draw(distances: NDArray[np.floating], labels: LabelledPair) -> tuple[list[float], float, int] | None:
    """CMC and mean of 1 / rank over all possible draws of all queries, and how many queries have no match."""
    cmcs, reciprocals, unmatched = [], [], 0
    for row, identity, camera in zip(distances, labels.query_identities, labels.query_cameras, strict=True):
        pictures: dict[int, list[int]] = {}
        for index, (other, seen_by) in enumerate(
            zip(labels.gallery_identities.tolist(), labels.gallery_cameras, strict=True)
        ):
            same_camera = other == identity and other > 0 and seen_by == camera and camera != UNKNOWN_CAMERA
            if other != -1 and not same_camera:
                pictures.setdefault(other, []).append(index)
        if identity not in pictures:
            unmatched += 1
            continue
        ranks = []
        for draw in product(*pictures.values()):
            ranked = sorted(draw, key=lambda index: (row[index], index))
            ranks.append(1 + [labels.gallery_identities[index] for index in ranked].index(identity))
        cmcs.append([np.mean([rank <= k for rank in ranks]) for k in range(1, 51)])
        reciprocals.append(np.mean([1 / rank for rank in ranks]))
    if not cmcs:
        return None
    return np.mean(cmcs, axis=0).tolist(), float(np.mean(reciprocals)), unmatched


def random_case(random: Generator) -> tuple[NDArray[np.float64], LabelledPair]:
    """Few pictures a person, with junk, distractors, unknown cameras and ties."""
    queries, gallery = int(random.integers(1, 4)), int(random.integers(4, 13))
    labels = LabelledPair.of(
        random.integers(1, 5, queries),
        random.choice([UNKNOWN_CAMERA, 1, 1, 2, 2], queries),
        random.integers(-1, 5, gallery),
        random.choice([UNKNOWN_CAMERA, 1, 1, 2, 2], gallery),
    )
    return random.integers(0, 6, (queries, gallery)) / 6, labels


@pytest.mark.parametrize("seed", range(30))
def test_many_draws_come_near_the_mean_over_all(seed: int) -> None:
    distances, labels = random_case(default_rng(seed))
    expected = every_draw(distances, labels)
    if expected is None:
        with pytest.raises(NoMatch):
            single_gallery_shot(distances, labels)
        return
    found = single_gallery_shot(distances, labels, repeats=4000, seed=seed)
    # A share over 4000 draws is off by 0.008 at most, once in three times; 0.04 is five times that.
    np.testing.assert_allclose(found.cmc, expected[0], atol=0.04)
    assert found.mAP == pytest.approx(expected[1], abs=0.04)
    assert (found.queries, found.unmatched) == (len(distances) - expected[2], expected[2])


def test_the_random_cases_hold_what_they_are_for() -> None:
    results = [every_draw(*random_case(default_rng(seed))) for seed in range(30)]
    assert any(result is None for result in results)
    assert any(result is not None and result[2] for result in results)
    assert sum(result is not None and 0 < result[0][0] < 1 for result in results) > 10


def test_one_picture_a_person_leaves_nothing_to_chance() -> None:
    random = default_rng(1)
    labels = LabelledPair.of(random.permutation(60)[:20] + 1, [1] * 20, random.permutation(60) + 1, [2] * 60)
    distances = random.random((20, 60))
    found, standard = single_gallery_shot(distances, labels, repeats=3), rank_metrics_of_distances(distances, labels)
    np.testing.assert_allclose(found.cmc, standard.cmc)
    assert found.mAP == pytest.approx(standard.mAP)
    assert found.cmc[-1] < 1  # some match is behind the fiftieth place


def test_a_persons_other_pictures_do_not_stand_before_the_match() -> None:
    # Nine pictures of a stranger are nearer than the match: behind them, or behind one of them.
    labels = LabelledPair.of([5], [1], [3] * 9 + [5], [2] * 10)
    distances = np.arange(10, dtype=np.float64)[None]
    assert rank_metrics_of_distances(distances, labels).mAP == pytest.approx(1 / 10)
    found = single_gallery_shot(distances, labels)
    assert found == SingleShot((0.0, *[1.0] * 49), 0.5, REPEATS, 1, 0)
    assert (found.rank(1), found.rank(2)) == (0.0, 1.0)


def test_a_seed_draws_the_same_and_another_draws_others() -> None:
    random = default_rng(2)
    labels = LabelledPair.of([1, 2, 3], [1] * 3, random.integers(1, 9, 80), [2] * 80)
    distances = random.random((3, 80))
    assert single_gallery_shot(distances, labels, seed=1) == single_gallery_shot(distances, labels, seed=1)
    assert single_gallery_shot(distances, labels, seed=1).mAP != single_gallery_shot(distances, labels, seed=2).mAP


def test_no_draw_is_refused() -> None:
    with pytest.raises(ValueError, match="0 draws a query"):
        single_gallery_shot(np.zeros((1, 1)), LabelledPair.of([1], [1], [1], [2]), repeats=0)
