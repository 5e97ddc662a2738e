"""The counting ranks against a plain loop over a stable sort."""

from __future__ import annotations

import tracemalloc
from dataclasses import astuple

import numpy as np
import pytest
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

from training.data.dataset import UNKNOWN_CAMERA
from training.retrieval.metrics import (
    LabelledPair,
    NoMatch,
    RankMetrics,
    cosine_distances,
    rank_metrics,
    rank_metrics_of_distances,
)


def plain_metrics(distances: NDArray[np.floating], labels: LabelledPair) -> RankMetrics | None:
    """The protocol as one reads it: sort, strike out, walk down the list. None where nothing can be measured."""
    cmc, step, official, inverse, unmatched = np.zeros(50), [], [], [], 0
    for row, identity, camera in zip(distances, labels.query_identities, labels.query_cameras, strict=True):
        hits = []
        for index in np.argsort(row, kind="stable"):
            other, seen_by = labels.gallery_identities[index], labels.gallery_cameras[index]
            if other == -1 or (other == identity and other > 0 and seen_by == camera and camera != UNKNOWN_CAMERA):
                continue
            hits.append(bool(other == identity and identity > 0))
        if not any(hits):
            unmatched += 1
            continue
        places = [place for place, hit in enumerate(hits, start=1) if hit]
        cmc[places[0] - 1 :] += 1
        step.append(sum(k / place for k, place in enumerate(places, start=1)) / len(places))
        official.append(official_average_precision(hits))
        inverse.append(len(places) / places[-1])
    if not step:
        return None
    return RankMetrics(
        cmc=tuple((cmc / len(step)).tolist()),
        mAP=float(np.mean(step)),
        mAP_official=float(np.mean(official)),
        mINP=float(np.mean(inverse)),
        queries=len(step),
        unmatched=unmatched,
    )


def official_average_precision(hits: list[bool]) -> float:
    """Market-1501's compute_AP: the trapezoids between successive recalls."""
    area, recall_before, precision_before, found, matches = 0.0, 0.0, 1.0, 0, sum(hits)
    for place, hit in enumerate(hits, start=1):
        found += hit
        recall, precision = found / matches, found / place
        area += (recall - recall_before) * (precision + precision_before) / 2
        recall_before, precision_before = recall, precision
    return area


def random_labels(random: Generator) -> LabelledPair:
    """A small case with junk, distractors, unknown cameras and, often, queries without a match."""
    queries, gallery = int(random.integers(1, 9)), int(random.integers(1, 70))
    people, cameras = int(random.integers(1, 6)), int(random.integers(1, 4))
    return LabelledPair.of(
        random.integers(1, people + 2, queries),
        random_cameras(random, cameras, queries),
        random.integers(-1, people + 1, gallery),
        random_cameras(random, cameras, gallery),
    )


def random_cameras(random: Generator, cameras: int, count: int) -> NDArray[np.int64]:
    """Cameras from 1 on, a tenth of them unknown."""
    return np.where(random.random(count) < 0.1, UNKNOWN_CAMERA, random.integers(1, cameras + 1, count))


def assert_same(found: RankMetrics, expected: RankMetrics) -> None:
    for a, b in zip(astuple(found), astuple(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", range(200))
def test_equals_the_plain_loop_on_distances(seed: int) -> None:
    random = default_rng(seed)
    labels = random_labels(random)
    shape = (len(labels.query_identities), len(labels.gallery_identities))
    # Every other case has few different distances, so that most of them tie.
    levels = int(random.integers(1, 8)) if seed % 2 else 10_000
    distances = random.integers(0, levels, shape) / levels
    expected = plain_metrics(distances, labels)
    if expected is None:
        with pytest.raises(NoMatch, match="no query has a match"):
            rank_metrics_of_distances(distances, labels)
    else:
        assert_same(rank_metrics_of_distances(distances, labels), expected)


@pytest.mark.parametrize("seed", range(200))
def test_equals_the_plain_loop_on_embeddings(seed: int) -> None:
    random = default_rng([seed, 1])
    labels = random_labels(random)
    # Signs have exact cosines: multiples of 1/16, with ties in plenty and equal in any order of summation.
    query, gallery = (
        random.choice(np.array([-1, 1], np.float32), (n, 16))
        for n in (len(labels.query_identities), len(labels.gallery_identities))
    )
    lengths = random.choice(np.array([0.5, 1, 4], np.float32), (len(gallery), 1))  # must not matter
    expected = plain_metrics(-(query @ gallery.T), labels)
    if expected is None:
        with pytest.raises(NoMatch, match="no query has a match"):
            rank_metrics(query, gallery * lengths, labels)
    else:
        assert_same(rank_metrics(query, gallery * lengths, labels), expected)


def test_the_random_cases_hold_what_they_are_for() -> None:
    cases = [random_labels(default_rng(seed)) for seed in range(200)]
    results = [plain_metrics(np.zeros((len(c.query_identities), len(c.gallery_identities))), c) for c in cases]
    assert sum(result is None for result in results) > 5
    assert sum(result is not None and result.unmatched > 0 for result in results) > 50
    assert all((case.gallery_identities < 1).any() for case in cases[:5])


def test_a_ranking_worked_out_by_hand() -> None:
    # Ranks of the matches once junk and the query's own camera are struck out: 1, 3 and 6.
    identities = [7, -1, 7, 0, 7, 3, 3, 7, 9]
    cameras = [1, 1, 2, 2, 3, 2, 1, 4, 1]
    distances = np.arange(9, dtype=np.float32)[None] / 10
    found = rank_metrics_of_distances(distances, LabelledPair.of([7], [1], identities, cameras))
    assert found.mAP == pytest.approx((1 + 2 / 3 + 3 / 6) / 3)
    assert found.mAP_official == pytest.approx((1 + (2 / 3 + 1 / 2) / 2 + (3 / 6 + 2 / 5) / 2) / 3)
    assert found.mINP == pytest.approx(3 / 6)
    assert found.cmc == (1.0,) * 50
    assert (found.queries, found.unmatched) == (1, 0)


def test_distractors_are_wrong_and_junk_is_nothing() -> None:
    labels = LabelledPair.of([5], [1], [0, -1, -1, 5], [2, 2, 3, 2])
    found = rank_metrics_of_distances(np.array([[0.1, 0.2, 0.3, 0.4]]), labels)
    assert (found.rank(1), found.rank(2), found.mAP) == (0.0, 1.0, 0.5)


def test_an_unknown_camera_equals_no_camera() -> None:
    distances = np.array([[0.1, 0.2, 0.3]])
    known = LabelledPair.of([5], [1], [5, 3, 5], [1, 2, 2])
    assert rank_metrics_of_distances(distances, known).mAP == 0.5  # the nearest shares its camera
    unknown = LabelledPair.of([5], [UNKNOWN_CAMERA], [5, 3, 5], [UNKNOWN_CAMERA] * 3)
    assert rank_metrics_of_distances(distances, unknown).mAP == pytest.approx((1 + 2 / 3) / 2)


def test_it_is_said_why_nothing_can_be_measured() -> None:
    with pytest.raises(NoMatch, match="only in its own: --ignore-cameras"):
        rank_metrics_of_distances(np.zeros((1, 2)), LabelledPair.of([5], [1], [5, 3], [1, 2]))
    with pytest.raises(NoMatch, match="none of their identities is in the gallery"):
        rank_metrics_of_distances(np.zeros((1, 2)), LabelledPair.of([5], [1], [4, 3], [1, 2]))
    with pytest.raises(NoMatch, match="none of these pictures is a query, so that nobody asks"):
        rank_metrics_of_distances(np.zeros((0, 2)), LabelledPair.of([], [], [4, 3], [1, 2]))
    with pytest.raises(NoMatch, match="none of these pictures is in the gallery, so that nobody answers"):
        rank_metrics_of_distances(np.zeros((1, 0)), LabelledPair.of([5], [1], [], []))


def test_rows_may_come_one_by_one() -> None:
    random = default_rng(0)
    labels = LabelledPair.of([1, 2, 1], [1, 1, 2], [1, 2, -1] * 3, [1, 2, 3] * 3)
    query, gallery = random.standard_normal((3, 4), np.float32), random.standard_normal((9, 4), np.float32)
    rows = (row for row in cosine_distances(query, gallery))
    assert rank_metrics_of_distances(rows, labels) == rank_metrics(query, gallery, labels)


def test_the_printed_figures_by_name() -> None:
    found = rank_metrics_of_distances(np.array([[0.1, 0.2]]), LabelledPair.of([5], [1], [3, 5], [2, 2]))
    assert found.figures() == {
        "rank1": 0.0,
        "rank5": 1.0,
        "rank10": 1.0,
        "rank20": 1.0,
        "mAP": 0.5,
        "mAP_official": 0.25,
        "mINP": 0.5,
    }


def test_a_match_behind_the_fiftieth_place_is_in_no_cmc() -> None:
    labels = LabelledPair.of([5], [1], [0] * 50 + [5], [2] * 51)
    found = rank_metrics_of_distances(np.arange(51, dtype=np.float64)[None], labels)
    assert found.cmc == (0.0,) * 50
    assert found.mAP == pytest.approx(1 / 51)


def test_ties_keep_the_order_of_the_gallery() -> None:
    alike = np.zeros((1, 4))
    first = rank_metrics_of_distances(alike, LabelledPair.of([5], [1], [5, 2, 3, 4], [2] * 4))
    last = rank_metrics_of_distances(alike, LabelledPair.of([5], [1], [2, 3, 4, 5], [2] * 4))
    assert (first.mAP, last.mAP) == (1.0, 0.25)


def test_many_queries_go_through_in_chunks_and_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.retrieval.metrics.CHUNK_BYTES", 2**20)
    random = default_rng(0)
    queries, gallery, dim = 250, 16_000, 8
    labels = LabelledPair.of(
        random.integers(1, 400, queries),
        random.integers(1, 4, queries),
        random.integers(-1, 400, gallery),
        random.integers(1, 4, gallery),
    )
    query = random.standard_normal((queries, dim), np.float32)
    answers = random.standard_normal((gallery, dim), np.float32)
    tracemalloc.start()
    whole = rank_metrics(query, answers, labels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * 2**20  # the whole matrix would be 15 MiB, its argsort 31 MiB
    # The last queries, which a later chunk answered, rank as they do alone.
    tail = LabelledPair.of(
        labels.query_identities[-5:], labels.query_cameras[-5:], labels.gallery_identities, labels.gallery_cameras
    )
    unit = answers / np.linalg.norm(answers, axis=1, keepdims=True)
    expected = plain_metrics(-(query[-5:] @ unit.T), tail)
    assert expected is not None
    assert rank_metrics(query[-5:], answers, tail).mAP == pytest.approx(expected.mAP, rel=1e-3)
    assert whole.queries + whole.unmatched == queries
    assert list(whole.cmc) == sorted(whole.cmc)


def test_the_given_distances_are_left_as_they_are() -> None:
    distances = default_rng(0).random((3, 9))
    before = distances.copy()
    rank_metrics_of_distances(distances, LabelledPair.of([1, 2, 1], [1, 1, 2], [1, 2, -1] * 3, [1, 2, 3] * 3))
    np.testing.assert_array_equal(distances, before)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_useless_embeddings_are_refused_by_number(value: float) -> None:
    labels = LabelledPair.of([1], [1], [1, 1], [2, 2])
    gallery = np.ones((2, 4), np.float32)
    gallery[1] = value
    with pytest.raises(ValueError, match="gallery: embedding 1 is zero or not finite"):
        rank_metrics(np.ones((1, 4), np.float32), gallery, labels)


def test_what_does_not_fit_together_is_refused() -> None:
    labels = LabelledPair.of([1], [1], [1, 1], [2, 2])
    with pytest.raises(ValueError, match=r"\[Q, D\] and \[G, D\]"):
        rank_metrics(np.ones((1, 4), np.float32), np.ones((2, 5), np.float32), labels)
    with pytest.raises(ValueError, match="gallery: 3 embeddings, but labels for 2"):
        rank_metrics(np.ones((1, 4), np.float32), np.ones((3, 4), np.float32), labels)
    for wrong in (np.zeros((1, 3)), np.zeros((0, 2)), np.zeros((2, 2)), np.zeros((1, 2, 1))):
        with pytest.raises(ValueError, match=r"distances: .* but labels for 1"):
            rank_metrics_of_distances(wrong, labels)
    with pytest.raises(ValueError, match="query 0 are not finite"):
        rank_metrics_of_distances(np.array([[0.0, np.nan]]), labels)
    with pytest.raises(ValueError, match="query: identities"):
        LabelledPair.of([1, 2], [1], [1], [1])
    with pytest.raises(ValueError, match="ranks go from 1 to 50"):
        rank_metrics_of_distances(np.zeros((1, 2)), labels).rank(51)
