from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from service.inference.model import read_model
from training import export as command
from training.config import build_config
from training.data import market1501, synthetic
from training.data.dataset import Dataset
from training.export import ExportError, Precision, export, main
from training.network.model import load_checkpoint_model
from training.pattern import draw_pattern
from training.retrieval.onnx_model import OnnxModel, open_session
from training.train import Trainer

CONFIG = build_config("smoke", overrides=["epochs=1", "identities=4", "shots=2", "base_width=8"])


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    synthetic.draw_market1501(folder, train_identities=8, test_identities=4, cameras=2, shots=2)
    return folder


@pytest.fixture(scope="module")
def data(drawn: Path) -> Dataset:
    return market1501.read(drawn)


@pytest.fixture(scope="module")
def checkpoint(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Trainer(CONFIG, data, tmp_path_factory.mktemp("run"), "cpu").train("none")


@pytest.fixture(scope="module", params=["fp32", "int8"])
def exported(request: pytest.FixtureRequest, checkpoint: Path, data: Dataset, tmp_path_factory: Any) -> Path:
    output: Path = tmp_path_factory.mktemp("export") / f"{request.param}.onnx"
    return export(checkpoint, data, output, request.param, name="tiny", licence_notice="for the test").path


def test_the_service_accepts_the_file(exported: Path) -> None:
    info = read_model(exported)
    assert (info.name, info.licence_notice) == ("tiny", "for the test")
    assert (info.height, info.width, info.embedding_dim) == (64, 32, 256)
    assert info.map_height * info.map_width == 8
    assert info.metrics is not None
    assert set(info.metrics) >= {"rank1", "mAP"}
    assert info.training_data.startswith("drawn")


def test_the_file_carries_its_own_answer_to_the_pattern(exported: Path) -> None:
    model = OnnxModel(exported)
    found = model.embed(draw_pattern(64, 32)[None])[0]
    expected = np.frombuffer(base64.b64decode(model.metadata["test_embedding"]), "<f4")
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_batches_of_any_size_give_the_same_rows(exported: Path) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (7, 64, 32, 3), np.uint8)
    model = OnnxModel(exported)
    rows = np.concatenate([model.embed(crop[None]) for crop in crops])
    np.testing.assert_allclose(model.embed(crops), rows, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_fp32_is_pytorch_and_its_attention_too(checkpoint: Path, data: Dataset, tmp_path: Path) -> None:
    path = export(checkpoint, data, tmp_path / "m.onnx", "fp32", evaluate=False).path
    crops = np.random.default_rng(0).integers(0, 256, (3, 64, 32, 3), np.uint8)
    embedding, attention = open_session(path).run(["embedding", "attention"], {"crops": crops})
    with torch.inference_mode():
        expected = load_checkpoint_model(checkpoint)(torch.from_numpy(crops))
    np.testing.assert_allclose(embedding, expected[0].numpy(), atol=1e-5)
    np.testing.assert_allclose(attention, expected[1].numpy(), atol=1e-5)
    np.testing.assert_allclose(attention.sum(axis=2), 1, atol=1e-5)


def test_int8_is_quantised_as_it_says(checkpoint: Path, data: Dataset, tmp_path: Path) -> None:
    path = export(checkpoint, data, tmp_path / "m.onnx", "int8", evaluate=False).path
    graph = onnx.load(path).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    producers = {output: node for node in graph.node for output in node.output}
    assert all(producers[node.input[0]].op_type == "DequantizeLinear" for node in convolutions)
    for node in convolutions:
        weights = onnx.numpy_helper.to_array(tensors[producers[node.input[1]].input[0]])
        scales = onnx.numpy_helper.to_array(tensors[producers[node.input[1]].input[1]])
        assert weights.dtype == np.int8
        assert len(scales) == len(weights)  # one for each output channel
        assert np.abs(weights.astype(int)).max() <= 64  # 7 bits


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_file_that_differs_is_not_written(
    checkpoint: Path, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Precision
) -> None:
    original = command.export_graph

    def wrong(model: Any, config: Any, path: Path) -> None:
        """Exports a network whose last stage forgot its weights."""
        with torch.no_grad():
            kept = {name: p.clone() for name, p in model.named_parameters()}
            for parameter in model.network.backbone.layer4.parameters():
                parameter.normal_()
            original(model, config, path)
            for name, parameter in model.named_parameters():
                parameter.copy_(kept[name])

    monkeypatch.setattr(command, "export_graph", wrong)
    with pytest.raises(ExportError, match="nothing was written"):
        export(checkpoint, data, tmp_path / "m.onnx", precision)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.pt", "--data", "DRAWN"], "absent.pt"),
        (["CHECKPOINT", "--data", "nowhere"], "nowhere is no folder"),
        (["README.md", "--data", "DRAWN"], "no checkpoint of training/train.py"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str], message: str, checkpoint: Path, drawn: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {"DRAWN": str(drawn), "CHECKPOINT": str(checkpoint)}
    assert main([words.get(word, word) for word in arguments]) == 2
    assert message in capsys.readouterr().err
