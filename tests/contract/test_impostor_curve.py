"""The curve that training measures is one that the service takes its match distance from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.random import default_rng

from service.gallery.ranking import ImpostorCurve
from service.inference.model import read_model
from service.jobs.calibrate import FEW_IDENTITIES
from tests.tiny_model import write_tiny_model
from training.retrieval.calibration import FEW_PEOPLE, impostor_curve


@pytest.mark.parametrize("spread", [1.0, 0.0], ids=["people", "axes"])
@pytest.mark.parametrize("people", [10, 40])
def test_a_measured_curve_is_read_and_used(people: int, spread: float, tmp_path: Path) -> None:
    random = default_rng(people)
    embeddings = (np.eye(people) + spread * random.standard_normal((people, people))).repeat(3, axis=0)
    written = impostor_curve(embeddings.astype(np.float32), np.arange(1, people + 1).repeat(3))
    path = tmp_path / "model.onnx"
    write_tiny_model(path, {"impostor_curve": json.dumps(written)})
    read = read_model(path).info.impostor_curve
    assert read is not None
    assert {key: list(getattr(read, key)) for key in written} == written
    curve = ImpostorCurve(read.false_match_rate, read.distance)
    distances = [curve.distance_at(rate) for rate in (1.0, 1e-1, 3e-3, 1e-5, 1e-7)]
    assert distances == sorted(distances, reverse=True)
    assert distances[1] == written["distance"][0]


def test_both_halves_doubt_as_few_people() -> None:
    assert FEW_PEOPLE == FEW_IDENTITIES
