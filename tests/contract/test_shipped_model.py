"""The model file in models/: it is what its card says, and it runs on this machine."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

from service.inference.derived import derive
from service.inference.engine import OnnxEngine
from service.inference.images import decode_crop
from service.inference.loading import load_engine
from service.inference.model import read_model
from service.jobs.optimize import agreement

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "models" / "market1501-int8.onnx"


@pytest.fixture(scope="module")
def engine() -> OnnxEngine:
    """Loaded: contract read and self-test passed."""
    return load_engine(read_model(MODEL), "cpu", threads=1, max_batch=8)


def test_the_card_names_this_file_and_its_figures(engine: OnnxEngine) -> None:
    card = (ROOT / "models" / "README.md").read_text(encoding="utf-8")
    assert hashlib.sha256(MODEL.read_bytes()).hexdigest() in card
    metrics = engine.info.metrics
    assert metrics is not None
    row = re.search(r"^\| market1501-int8\.onnx \|(.*)\|$", card, re.MULTILINE)
    assert row is not None
    keys = ("rank1", "rank5", "rank10", "mAP", "mAP_official", "mINP")
    assert [float(cell) for cell in row[1].split("|")] == [round(100 * metrics[key], 1) for key in keys]


def test_it_is_small_and_says_what_it_may_be_used_for(engine: OnnxEngine) -> None:
    assert MODEL.stat().st_size <= 30e6
    assert "research only" in engine.info.licence_notice
    assert engine.info.precision == "int8"


def test_what_a_gpu_runs_of_it_embeds_alike(engine: OnnxEngine) -> None:
    """Derived by the rules of service/inference/half.py, and run on the CPU. Seen: 0.992 at least, all neighbours."""
    paths = sorted((ROOT / "examples" / "crops").glob("*.jpg"))
    crops = np.stack([decode_crop(path.read_bytes(), engine.info.height, engine.info.width) for path in paths])
    half = load_engine(derive(read_model(MODEL)), "cpu", threads=1, max_batch=8)
    assert half.info.sha256 == engine.info.sha256
    found = agreement(engine.run(crops).embeddings, half.run(crops).embeddings, "int8")
    assert found.cosine_least > 0.985
    assert found.nearest > 0.9


def test_drawn_people_are_told_apart(engine: OnnxEngine) -> None:
    """Eight people in three cameras: better than chance, which is one in eight."""
    paths = sorted((ROOT / "examples" / "crops").glob("*.jpg"))
    crops = np.stack([decode_crop(path.read_bytes(), engine.info.height, engine.info.width) for path in paths])
    embeddings = engine.run(crops).embeddings
    similarity = embeddings @ embeddings.T
    np.fill_diagonal(similarity, -1)
    people = np.array([path.name[:4] for path in paths])
    assert np.mean(people[similarity.argmax(axis=1)] == people) > 0.25
