"""OpenVINO's models are measured as ours are: the same pictures in the same order, fed as their zoo says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import unseen_cameras
from benchmarks.peers.openvino_embeddings import ZOO, main
from tests.training.retrieval.cells import write_model
from training import evaluate
from training.data.synthetic import draw_market1501
from training.retrieval.onnx_model import INPUT_LAYOUTS

CONVERT = """
import sys, openvino
openvino.save_model(openvino.Core().read_model(sys.argv[1]), sys.argv[2], compress_to_fp16=False)
"""


@pytest.fixture(scope="module")
def python() -> str:
    """A Python that has OpenVINO."""
    for candidate in (sys.executable, ".venv-peers/bin/python"):
        if (
            Path(candidate).is_file()
            and subprocess.run([candidate, "-c", "import openvino, rich"], capture_output=True).returncode == 0
        ):
            return candidate
    pytest.skip("OpenVINO is not installed: `make bench` makes .venv-peers, which has it")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    draw_market1501(folder, train_identities=3, test_identities=5, cameras=2, shots=5)
    return folder


def embed(python: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [python, "-m", "benchmarks.peers.openvino_embeddings", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_embeddings_are_those_of_onnx_runtime(python: str, data: Path, tmp_path: Path) -> None:
    onnx, xml = write_model(tmp_path / "cells.onnx", INPUT_LAYOUTS[ZOO], batch=1), tmp_path / "cells.xml"
    subprocess.run([python, "-c", CONVERT, str(onnx), str(xml)], check=True)
    for name, model in (("openvino", xml), ("openvino-onnx", onnx)):
        done = embed(python, model, "--data", data, "--output", tmp_path / name)
        assert (done.returncode, done.stderr) == (0, "")
    saved = ["--data", str(data), "--save", str(tmp_path / "onnxruntime")]
    assert evaluate.main([str(onnx), "--input-layout", ZOO, *saved]) == 0
    for part in ("query.npy", "gallery.npy"):
        wanted = np.load(tmp_path / "onnxruntime" / part)
        for name in ("openvino", "openvino-onnx"):
            assert np.load(tmp_path / name / part) == pytest.approx(wanted, abs=1e-5)
    assert len(wanted) > 16  # more than a batch
    assert evaluate.main([str(tmp_path / "openvino"), "--data", str(data)]) == 0


def test_another_layout_is_another_embedding(python: str, data: Path, tmp_path: Path) -> None:
    onnx = write_model(tmp_path / "cells.onnx", INPUT_LAYOUTS[ZOO], batch=1)
    for layout in (ZOO, "nchw-float-rgb-255"):
        arguments = ("--data", data, "--output", tmp_path / layout, "--input-layout", layout)
        assert embed(python, onnx, *arguments).returncode == 0
    found, other = (np.load(tmp_path / layout / "query.npy") for layout in (ZOO, "nchw-float-rgb-255"))
    cells = found.reshape(len(found), 3, -1)  # colours first
    assert other == pytest.approx(cells[:, ::-1].reshape(found.shape), abs=1e-5)


def test_what_is_no_model_is_said_in_a_sentence(python: str, data: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.xml"
    text.write_text("no model")
    done = embed(python, text, "--data", data, "--output", tmp_path / "out")
    assert done.returncode == 2
    assert f"error: {text} is no model of crops that OpenVINO can load" in done.stderr
    assert not (tmp_path / "out").exists()


def test_without_openvino_it_says_what_it_needs(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert main([str(tmp_path / "any.xml"), "--data", str(data), "--output", str(tmp_path / "out")]) == 2
    assert "openvino" in (said := capsys.readouterr().err)
    assert "benchmarks/peers/requirements.txt" in said
    monkeypatch.setattr(unseen_cameras, "PEOPLE", 5)
    assert unseen_cameras.main([str(tmp_path / "any.xml"), "--data", str(data)]) == 2
    assert "openvino" in capsys.readouterr().err
