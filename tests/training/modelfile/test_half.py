from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.training.modelfile.conftest import Traced
from training.modelfile.half import halve
from training.retrieval.onnx_model import open_session


def test_convolutions_of_maps_have_half_weights(traced: Traced) -> None:
    graph = onnx.load(traced.files["fp16"]).graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    kinds: dict[tuple[int, ...], set[int]] = {}  # of weights and biases, by the size of the kernel
    for node in graph.node:
        if node.op_type == "Conv":
            found = kinds.setdefault(tuple(weights[node.input[1]].dims[2:]), set())
            found.update(weights[name].data_type for name in node.input[1:])
    assert kinds.pop((3,), {TensorProto.FLOAT}) == {TensorProto.FLOAT}  # spatial attention's scores
    assert len(kinds) == 3  # 7x7, 3x3, 1x1
    assert all(kind == {TensorProto.FLOAT16} for kind in kinds.values())


def test_the_file_is_about_half_as_large(traced: Traced) -> None:
    half, full = (traced.files[precision].stat().st_size for precision in ("fp16", "fp32"))
    assert half < 0.6 * full


def test_nothing_is_rounded_between_operators_in_float32(traced: Traced) -> None:
    """Only what a halved operator made is cast back."""
    nodes = onnx.load(traced.files["fp16"]).graph.node
    producers = {output: node.op_type for node in nodes for output in node.output}
    back = [node for node in nodes if node.op_type == "Cast" and node.attribute[0].i == TensorProto.FLOAT]
    assert len(back) > 1  # the uint8 crops, and the last map
    assert {producers.get(node.input[0], "input") for node in back} <= {"Transpose", "Conv", "Relu", "Add"}


def graph_of(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], outputs: dict[str, list[int | str]]) -> bytes:
    """A model of input x float32 [N, 2, 4, 4]."""
    graph = helper.make_graph(
        nodes,
        "hand-made",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2, 4, 4])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    content: bytes = model.SerializeToString()
    return content


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fp32.onnx"


X = np.random.default_rng(0).normal(size=(3, 2, 4, 4)).astype(np.float32)


def test_a_score_beyond_float16_stays_finite(path: Path) -> None:
    """The product of two maps is no map: neither it nor the sum is rounded to float16."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["map"]),
        helper.make_node("Reshape", ["map", "rows"], ["flat"]),
        helper.make_node("Transpose", ["flat"], ["columns"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["columns", "flat"], ["scores"]),
        helper.make_node("Add", ["scores", "scores"], ["y"]),
    ]
    weights = {"w": np.full((2, 2, 1, 1), 300, np.float32), "rows": np.array([0, 2, 16])}
    path.write_bytes(graph_of(nodes, weights, {"y": ["N", 16, 16]}))
    (expected,) = open_session(path).run(None, {"x": X})
    (found,) = open_session(halve(path)).run(None, {"x": X})
    assert expected.max() > 65_504
    np.testing.assert_allclose(found, expected, rtol=5e-3, atol=5e-3 * expected.max())


def test_a_weight_that_both_precisions_read_is_kept_in_both(path: Path) -> None:
    nodes = [
        helper.make_node("Add", ["x", "w"], ["sum"]),
        helper.make_node("Mul", ["sum", "w"], ["y"]),
        helper.make_node("Relu", ["sum"], ["z"]),
    ]
    path.write_bytes(
        graph_of(nodes, {"w": np.full((1, 2, 1, 1), 0.1, np.float32)}, {"y": ["N", 2, 4, 4], "z": ["N", 2, 4, 4]})
    )
    half = halve(path)
    kinds = {tensor.name: tensor.data_type for tensor in onnx.load(half).graph.initializer}
    assert kinds == {"w": TensorProto.FLOAT, "w.half": TensorProto.FLOAT16}
    for found, expected in zip(*(open_session(file).run(["y", "z"], {"x": X}) for file in (half, path)), strict=True):
        assert found.dtype == np.float32  # z, a map, is cast for whoever asked for it
        np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-2)


def test_sums_of_integers_are_left_alone(path: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Add", ["shape", "zeros"], ["same"]),
        helper.make_node("Relu", ["x"], ["map"]),
        helper.make_node("Reshape", ["map", "same"], ["y"]),
    ]
    path.write_bytes(graph_of(nodes, {"zeros": np.zeros(4, np.int64)}, {"y": ["N", 2, 4, 4]}))
    (found,) = open_session(halve(path)).run(None, {"x": X})
    np.testing.assert_allclose(found, np.maximum(X, 0), rtol=1e-3)
