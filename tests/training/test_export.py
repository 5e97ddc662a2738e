from __future__ import annotations

import base64
import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import onnx
import pytest
import torch

from service.inference.model import read_model
from training import export as command
from training.config import Config, build_config
from training.data.dataset import Dataset
from training.export import export, main
from training.loop.trainer import Trainer
from training.modelfile.graph import export_graph
from training.modelfile.metadata import LICENCE_NOTICES, architecture, map_size
from training.modelfile.parity import ExportError, Precision
from training.modelfile.pattern import draw_pattern
from training.modelfile.quantise import quantise
from training.network.resnet import ResNet
from training.network.stored import Checkpoint, load_checkpoint_model, read_checkpoint
from training.retrieval.onnx_model import OnnxModel, open_session

CONFIG = build_config("smoke", overrides=["epochs=4", "identities=4", "shots=2", "base_width=8"])


@pytest.fixture(scope="module")
def checkpoint(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return read_checkpoint(Trainer(CONFIG, data, tmp_path_factory.mktemp("run"), "cpu").train("none"))


@pytest.fixture(scope="module")
def traced(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What PyTorch's exporter makes of the checkpoint. It is slow: it runs once, and the tests copy its file."""
    path = tmp_path_factory.mktemp("traced") / "fp32.onnx"
    export_graph(load_checkpoint_model(checkpoint), checkpoint.config, path)
    return path


@pytest.fixture(scope="module", autouse=True)
def copied_graph(traced: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "export_graph", lambda _model, _config, path: shutil.copy(traced, path))
        yield


@pytest.fixture(scope="module")
def files(checkpoint: Checkpoint, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An exported file for each precision."""
    folder = tmp_path_factory.mktemp("export")
    return {
        precision: export(
            checkpoint, data, folder / f"{precision}.onnx", precision, name="tiny", licence_notice="for the test"
        ).path
        for precision in get_args(Precision)
    }


@pytest.fixture(params=["fp32", "int8"])
def exported(request: pytest.FixtureRequest, files: dict[str, Path]) -> Path:
    return files[request.param]


def test_the_service_accepts_the_file(exported: Path) -> None:
    info = read_model(exported).info
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


def test_fp32_is_pytorch_and_its_attention_too(checkpoint: Checkpoint, files: dict[str, Path]) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (3, 64, 32, 3), np.uint8)
    embedding, attention = open_session(files["fp32"]).run(["embedding", "attention"], {"crops": crops})
    with torch.inference_mode():
        expected = load_checkpoint_model(checkpoint)(torch.from_numpy(crops))
    np.testing.assert_allclose(embedding, expected[0].numpy(), atol=1e-5)
    np.testing.assert_allclose(attention, expected[1].numpy(), atol=1e-5)
    np.testing.assert_allclose(attention.sum(axis=2), 1, atol=1e-5)


def test_int8_is_quantised_as_it_says(files: dict[str, Path]) -> None:
    graph = onnx.load(files["int8"]).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    first, *convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 20  # 4 blocks of 3 and a shortcut each, f and g, h in two
    producers = {output: node for node in graph.node for output in node.output}
    assert producers[first.input[0]].op_type == "Div"  # the normalised picture, not quantised
    assert all(producers[node.input[0]].op_type == "DequantizeLinear" for node in convolutions)
    for node in convolutions:
        weights = onnx.numpy_helper.to_array(tensors[producers[node.input[1]].input[0]])
        scales = onnx.numpy_helper.to_array(tensors[producers[node.input[1]].input[1]])
        assert weights.dtype == np.int8
        assert len(scales) == len(weights)  # one for each output channel
        assert np.abs(weights.astype(int)).max() <= 64  # 7 bits


def test_no_relu_follows_a_signed_range(files: dict[str, Path]) -> None:
    """A Conv quantised over [min, max] before a ReLU would throw half of its 256 steps away."""
    nodes = onnx.load(files["int8"]).graph.node
    producers = {output: node for node in nodes for output in node.output}
    assert any(node.op_type == "Conv" for node in nodes)
    for node in nodes:
        if node.op_type == "Relu":
            assert producers[node.input[0]].op_type != "DequantizeLinear"


def producer(graph: onnx.GraphProto, output: str) -> onnx.NodeProto:
    node: onnx.NodeProto = next(node for node in graph.node if output in node.output)
    return node


def set_constant(graph: onnx.GraphProto, operator: str, change: Callable[[Any], Any]) -> None:
    """Change the constant that the first node of this type has as its second input."""
    name = next(node.input[1] for node in graph.node if node.op_type == operator)
    tensor = next(tensor for tensor in graph.initializer if tensor.name == name)
    value = onnx.numpy_helper.to_array(tensor)
    tensor.CopyFrom(onnx.numpy_helper.from_array(change(value).astype(value.dtype), name))


def no_normalisation(graph: onnx.GraphProto) -> None:
    last = producer(graph, "embedding")
    last.op_type = "Identity"
    del last.input[1:]


def wrong_mean(graph: onnx.GraphProto) -> None:
    set_constant(graph, "Sub", lambda mean: np.full_like(mean, 127.5))


def wrong_std(graph: onnx.GraphProto) -> None:
    set_constant(graph, "Div", lambda std: np.full_like(std, 127.5))


def bgr(graph: onnx.GraphProto) -> None:
    first = next(node for node in graph.node if node.op_type == "Transpose")
    first.input[0] = "reversed"
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([2, 1, 0]), "order"))
    graph.node.insert(0, onnx.helper.make_node("Gather", ["crops", "order"], ["reversed"], axis=3))


def random_layer4(graph: onnx.GraphProto) -> None:
    random = np.random.default_rng(0)
    for tensor in graph.initializer:
        if "layer4" in tensor.name and len(tensor.dims) == 4:
            value = random.normal(size=tuple(tensor.dims)).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))


def other_attention(graph: onnx.GraphProto) -> None:
    """The embedding is right, the attention beside it is not what it was made with."""
    softmax = producer(graph, "attention")
    for node in graph.node:
        for n, name in enumerate(node.input):
            node.input[n] = "true_attention" if name == "attention" else name
    softmax.output[0] = "true_attention"
    graph.node.append(onnx.helper.make_node("Mul", ["true_attention", "true_attention"], ["attention"]))


def altered(path: Path, fault: Callable[[onnx.GraphProto], None]) -> None:
    model = onnx.load(path)
    fault(model.graph)
    onnx.save(model, path)


@pytest.mark.parametrize(
    ("fault", "message", "precision"),
    [
        (no_normalisation, "no unit vectors", "fp32"),
        (wrong_mean, "has cosine", "fp32"),
        (wrong_std, "has cosine", "fp32"),
        (bgr, "has cosine", "fp32"),
        (random_layer4, "has cosine", "fp32"),
        (other_attention, "attention is", "fp32"),
        (wrong_std, "the fp32 file's embedding has cosine", "int8"),  # what int8's own bound might let through
    ],
)
def test_a_file_that_differs_is_not_written(
    checkpoint: Checkpoint,
    data: Dataset,
    traced: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[onnx.GraphProto], None],
    message: str,
    precision: Precision,
) -> None:
    def faulty(_model: object, _config: object, path: Path) -> None:
        shutil.copy(traced, path)
        altered(path, fault)

    monkeypatch.setattr(command, "export_graph", faulty)
    with pytest.raises(ExportError, match=f"{message}.*nothing was written"):
        export(checkpoint, data, tmp_path / "m.onnx", precision)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("fault", "message"), [(random_layer4, "has cosine"), (no_normalisation, "no unit vectors")])
def test_int8_is_compared_too(
    checkpoint: Checkpoint,
    data: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[onnx.GraphProto], None],
    message: str,
) -> None:
    def faulty(path: Path, *arguments: Any) -> Path:
        altered(path, fault)
        return quantise(path, *arguments)

    monkeypatch.setattr(command, "quantise", faulty)
    with pytest.raises(ExportError, match=f"the int8 file's embedding.*{message}.*nothing was written"):
        export(checkpoint, data, tmp_path / "m.onnx", "int8")
    assert list(tmp_path.iterdir()) == []


def test_the_file_speaks_of_what_it_was_trained_on(checkpoint: Checkpoint, data: Dataset, tmp_path: Path) -> None:
    """Whatever it is exported with."""
    trained_on = {**checkpoint.state["data"], "name": "Market-1501"}
    starts = [{"revision": "first"}, {"revision": "second"}]
    market = replace(checkpoint, state={**checkpoint.state, "data": trained_on, "environments": starts})
    info = read_model(export(market, data, tmp_path / "m.onnx", "fp32", measure=False).path).info
    assert info.name == "market1501-fp32"
    assert info.licence_notice == LICENCE_NOTICES["Market-1501"]
    assert info.training_data.startswith("Market-1501: ")
    assert info.source_revision.startswith("second, exported by ")


def test_the_evaluation_is_of_the_file_that_is_left(checkpoint: Checkpoint, data: Dataset, tmp_path: Path) -> None:
    exported = export(checkpoint, data, tmp_path / "m.onnx", "fp32")
    assert exported.evaluation is not None
    assert exported.evaluation.model == str(tmp_path / "m.onnx")
    assert exported.evaluation.sha256 == hashlib.sha256((tmp_path / "m.onnx").read_bytes()).hexdigest()
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize("last_stride", [1, 2])
@pytest.mark.parametrize("size", [(256, 128), (64, 32), (100, 50), (33, 65)])
def test_the_map_has_the_size_that_the_network_makes(size: tuple[int, int], last_stride: Literal[1, 2]) -> None:
    config = Config(height=size[0], width=size[1], last_stride=last_stride)
    with torch.inference_mode():
        shape = ResNet((1, 1, 1, 1), 1, last_stride).eval()(torch.zeros(1, 3, *size)).shape
    assert map_size(config) == shape[2:]


def test_the_architecture_tells_the_choices() -> None:
    paper, strong = architecture(Config()), architecture(build_config("strong"))
    assert paper.startswith("resnet50, stride in the 1x1 convolution, last stride 2, ")
    assert "unscaled scores" in paper
    assert ", scaled scores" in strong
    assert "3x3 convolution" in architecture(Config(stride_placement="3x3"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.pt", "--data", "DRAWN"], "absent.pt"),
        (["CHECKPOINT", "--data", "nowhere"], "nowhere is no folder"),
        (["README.md", "--data", "DRAWN"], "no checkpoint of training/train.py"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str], message: str, checkpoint: Checkpoint, drawn: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {"DRAWN": str(drawn), "CHECKPOINT": str(checkpoint.path)}
    assert main([words.get(word, word) for word in arguments]) == 2
    assert message in capsys.readouterr().err
