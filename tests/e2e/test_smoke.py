"""The thin line through the whole house: train, export, serve, enrol, query, by the commands that a user types."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from service.client import Resight
from service.settings import Settings
from tests.serving import serve
from training.data import market1501
from training.loop.trainer import COLLAPSED
from training.retrieval.metrics import rank_metrics
from training.retrieval.onnx_model import OnnxModel
from training.retrieval.protocol import Evaluation, evaluate
from training.retrieval.ranking import ranking_of


@pytest.fixture(scope="module")
def evaluation(run: Path) -> Evaluation:
    return evaluate(OnnxModel(run / "model-int8.onnx"), market1501.read(run / "drawn"))


def test_smoke_learns_more_than_chance(run: Path, evaluation: Evaluation) -> None:
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert log[-1]["cross_entropy"] < 0.7 * log[0]["cross_entropy"]
    assert min(line["attention_entropy"] for line in log) > COLLAPSED
    # Of 12 identities one is right: chance is below 0.1.
    assert evaluation.metrics.rank(1) > 0.25
    assert evaluation.metrics.mAP > 0.25


def test_the_run_tells_its_results(run: Path, evaluation: Evaluation) -> None:
    results = json.loads((run / "results.json").read_text())
    assert [result["precision"] for result in results] == ["fp32", "int8"]
    for result in results:
        path = run / f"model-{result['precision']}.onnx"
        assert (result["model"], result["sha256"]) == (str(path), hashlib.sha256(path.read_bytes()).hexdigest())
    assert results[1]["metrics"]["mAP"] == pytest.approx(evaluation.metrics.mAP)
    assert f"{100 * evaluation.metrics.mAP:.2f}" in (run / "printed.txt").read_text()


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_trained_exported_served_enrolled_queried(run: Path, tmp_path: Path, precision: str) -> None:
    model = run / f"model-{precision}.onnx"
    data = market1501.read(run / "drawn")
    expected = evaluate(OnnxModel(model), data)
    ranking = ranking_of(data, "test")
    with serve(Settings(model=model, gallery=f"sqlite:///{tmp_path}", device="cpu")) as served:
        command = [sys.executable, "-c", "from service.cli.commands import main; main()"]
        gallery = str(run / "drawn" / "bounding_box_test")
        enrolled = subprocess.run([*command, "enrol", gallery, "--url", served.url], capture_output=True, text=True)
        assert enrolled.returncode == 0, enrolled.stderr
        with Resight(served.url) as client:
            assert client.ready().details["crops"] == len(ranking.gallery)  # junk left out
            query = np.concatenate([client.embed([sample.read()]) for sample in ranking.query])
            stored = np.concatenate([client.embed([sample.read()]) for sample in ranking.gallery])
            metrics = rank_metrics(query, stored, ranking.labels())
            assert metrics.mAP == pytest.approx(expected.metrics.mAP, abs=1e-3)
            hits = []
            for sample in ranking.query:
                answer = client.query([sample.read()], top_k=50, crops_per_identity=100)
                crops = sorted(
                    (crop.distance, match.identity, crop.camera) for match in answer.matches for crop in match.crops
                )
                own = (f"{sample.identity:04d}", f"c{sample.camera}")
                hits.append(next(who for _, who, camera in crops if (who, camera) != own) == own[0])
            assert np.mean(hits) == pytest.approx(expected.metrics.rank(1), abs=1e-3)


def test_the_file_tells_what_it_is(run: Path, evaluation: Evaluation, tmp_path: Path) -> None:
    with (
        serve(Settings(model=run / "model-int8.onnx", gallery=f"sqlite:///{tmp_path}", device="cpu")) as served,
        Resight(served.url) as client,
    ):
        model = client.model().details
    assert model["metrics"]["mAP"] == pytest.approx(evaluation.metrics.mAP, abs=1e-6)
    assert model["training_data"].startswith("drawn: ")
    assert model["name"] == "drawn-int8"
    assert model["precision"] == "int8"
    assert (model["height"], model["width"]) == (64, 32)
