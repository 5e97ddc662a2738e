"""The impostor-distance curve against quantiles of all pairs, written out."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.random import default_rng
from numpy.typing import NDArray

from training.retrieval.calibration import FEWEST_PAIRS, RATES, doubt, impostor_curve


def all_distances(embeddings: NDArray[np.float32], identities: NDArray[np.int64]) -> NDArray[np.float64]:
    unit = embeddings.astype(np.float64) / np.linalg.norm(embeddings, axis=1, keepdims=True)
    pairs = [(i, j) for i in range(len(unit)) for j in range(i) if identities[i] != identities[j]]
    first, second = np.array(pairs).T
    distances: NDArray[np.float64] = np.linalg.norm(unit[first] - unit[second], axis=1) / 2
    return distances


def crops(people: int, shots: int, dim: int = 16, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    random = default_rng(seed)
    identities = np.repeat(np.arange(1, people + 1), shots)
    embeddings = random.standard_normal((people, dim))[identities - 1] + 0.3 * random.standard_normal(
        (len(identities), dim)
    )
    return embeddings.astype(np.float32), identities


@pytest.mark.parametrize(("people", "shots", "measured"), [(30, 4, 2), (50, 6, 3), (120, 5, 4)])
def test_measured_distances_are_quantiles_of_all_pairs(people: int, shots: int, measured: int) -> None:
    embeddings, identities = crops(people, shots)
    curve = impostor_curve(embeddings, identities)
    distances = all_distances(embeddings, identities)
    assert curve["false_match_rate"] == [1e-1, 1e-2, 1e-3, 1e-4, 1e-5]
    assert curve["extrapolated"] == [rate * len(distances) < 10 for rate in RATES]
    assert curve["extrapolated"].count(False) == measured
    np.testing.assert_allclose(curve["distance"][:measured], np.quantile(distances, RATES[:measured]), atol=2e-6)


@pytest.mark.parametrize(("people", "shots"), [(10, 2), (30, 4), (50, 6)])
def test_the_rest_lies_on_the_line_of_the_tail(people: int, shots: int) -> None:
    embeddings, identities = crops(people, shots)
    curve = impostor_curve(embeddings, identities)
    distances = all_distances(embeddings, identities)
    rates = np.array([10 / len(distances), min(100 / len(distances), 0.5)])
    near, far = np.quantile(distances, rates)
    slope = (far - near) / np.diff(np.log10(rates))[0]
    for rate, distance, extrapolated in zip(
        *(curve[key] for key in ("false_match_rate", "distance", "extrapolated")), strict=True
    ):
        if extrapolated:
            assert distance == pytest.approx(max(0, near + slope * np.log10(rate / rates[0])), abs=1e-5)
    assert curve["distance"] == sorted(curve["distance"], reverse=True)
    assert curve["extrapolated"][-1]


def test_the_line_errs_to_the_strict_side() -> None:
    """Of many pairs a curve measures what a curve of few of them extrapolates."""
    embeddings, identities = crops(400, 2, dim=32, seed=1)
    whole = impostor_curve(embeddings, identities)
    part = impostor_curve(embeddings[:60], identities[:60])
    assert (whole["extrapolated"][3], part["extrapolated"][3]) == (False, True)
    assert part["distance"][3] <= whole["distance"][3]


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings, identities = crops(20, 3)
    whole = impostor_curve(embeddings, identities)
    monkeypatch.setattr("training.retrieval.calibration.CHUNK_PAIRS", 200)
    assert impostor_curve(embeddings, identities)["distance"] == pytest.approx(whole["distance"], abs=2e-6)


def test_pairs_of_one_person_do_not_count() -> None:
    """Twins of every crop lie at distance 0, and a stranger at 1 / sqrt 2."""
    axes = np.repeat(np.eye(20, dtype=np.float32), 3, axis=0)
    curve = impostor_curve(axes, np.repeat(np.arange(1, 21), 3))
    np.testing.assert_allclose(curve["distance"], np.sqrt(0.5), atol=1e-6)


def test_distances_do_not_fall_below_zero() -> None:
    axes = np.repeat(np.eye(16, dtype=np.float32), 2, axis=0)
    curve = impostor_curve(axes, np.arange(1, 33))  # sixteen pairs of strangers look the same
    assert curve["distance"][-1] == 0
    assert curve["distance"][0] > 0.7


def test_it_is_json() -> None:
    curve = impostor_curve(*crops(10, 3))
    assert json.loads(json.dumps(curve)) == curve


def test_what_measures_nothing_is_refused() -> None:
    embeddings, identities = crops(4, 3)  # 54 pairs
    with pytest.raises(ValueError, match=f"12 crops make 54 pairs of different people: {FEWEST_PAIRS} at least"):
        impostor_curve(embeddings, identities)
    with pytest.raises(ValueError, match="0 crops make 0 pairs"):
        impostor_curve(np.empty((0, 4), np.float32), np.empty(0, np.int64))
    with pytest.raises(ValueError, match="known people"):
        impostor_curve(embeddings, identities - 1)
    with pytest.raises(ValueError, match=r"\[N, D\] and \[N\]"):
        impostor_curve(embeddings, identities[1:])
    embeddings[5] = 0
    with pytest.raises(ValueError, match="calibration: embedding 5 is zero"):
        impostor_curve(embeddings, identities)


def test_few_strangers_are_doubted() -> None:
    assert [doubt(people) is None for people in (0, 1, 29, 30, 50)] == [True, False, False, True, True]
