"""The offline path to a better model: retrain, export, change the file, embed the gallery again, serve."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from service.client import Resight
from service.settings import Settings
from tests.e2e.conftest import train
from tests.serving import serve

RESIGHT = [sys.executable, "-c", "from service.cli.commands import main; main()"]


@pytest.fixture(scope="module")
def retrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of another run, whose network has another beginning and another end."""
    return train(tmp_path_factory.mktemp("retrained"), "--set", "seed=1", "--set", "epochs=2")


def resight(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*RESIGHT, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done


def test_a_retrained_model_takes_the_gallery_over(run: Path, retrained: Path, tmp_path: Path) -> None:
    model = Path(shutil.copy(run / "model-int8.onnx", tmp_path / "model.onnx"))
    gallery = f"sqlite:///{tmp_path / 'data'}"
    settings = Settings(model=model, gallery=gallery, device="cpu")
    probe = sorted((run / "drawn" / "query").iterdir())[0].read_bytes()
    with serve(settings) as served, Resight(served.url) as client:
        resight("enrol", run / "drawn" / "bounding_box_test", "--url", served.url)
        enrolled = {crop.crop_id: crop for crop in client.crops()}
        old_embedding = client.embed([probe])
    assert enrolled

    shutil.copy(retrained / "model-int8.onnx", model)
    refused = resight("serve", "--model", model, "--gallery", gallery, "--device", "cpu", "--port", "0", code=2)
    assert "let `resight reembed` embed its pictures with this one" in refused.stderr

    done = resight("reembed", "--model", model, "--gallery", gallery, "--device", "cpu")
    assert done.stdout == f"{len(enrolled)} crops embedded by drawn-int8, 0 erased\n"
    with serve(settings) as served, Resight(served.url) as client:
        assert {crop.crop_id: crop for crop in client.crops()} == enrolled
        assert client.model().details["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
        assert not np.allclose(client.embed([probe]), old_embedding, atol=0.05)
        for crop_id in list(enrolled)[:8]:
            stored = served.client.get(f"/gallery/{crop_id}/image").content
            answer = client.query([stored], top_k=1000, crops_per_identity=100)
            assert answer.searched == len(enrolled)
            distances = {crop.crop_id: crop.distance for match in answer.matches for crop in match.crops}
            assert distances[crop_id] < 0.01  # the new model's own embedding of that picture
