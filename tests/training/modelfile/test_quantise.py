from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.training.modelfile.conftest import Traced
from training.modelfile.quantise import store_in_half
from training.retrieval.onnx_model import open_session


def test_int8_is_quantised_as_it_says(traced: Traced) -> None:
    graph = onnx.load(traced.files["int8"]).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    producers = {output: node for node in graph.node for output in node.output}
    first, *others = [node for node in graph.node if node.op_type == "Conv"]
    assert producers[first.input[0]].op_type == "Div"  # the normalised picture, not quantised
    convolutions = [node for node in others if len(attribute(node, "kernel_shape")) == 2]
    # 4 blocks of 3 and a shortcut each, and the attention's: f, g, h in two parts; the one before the scores
    assert len(convolutions) == 16 + {"self": 4, "spatial": 1, "none": 0}[traced.config.attention]
    for node in convolutions:
        assert producers[node.input[0]].op_type == "DequantizeLinear"
        weights, scales = (numpy_helper.to_array(tensors[name]) for name in producers[node.input[1]].input[:2])
        assert weights.dtype == np.int8
        assert len(scales) == len(weights)  # one for each output channel
        assert np.abs(weights.astype(int)).max() <= 64  # 7 bits


def test_the_convolution_that_makes_scores_is_not_quantised(traced: Traced) -> None:
    graph = onnx.load(traced.files["int8"]).graph
    producers = {output: node.op_type for node in graph.node for output in node.output}
    scores = [node for node in graph.node if node.op_type == "Conv" and len(attribute(node, "kernel_shape")) == 1]
    assert len(scores) == (traced.config.attention == "spatial")
    for node in scores:
        assert node.input[1] in {tensor.name for tensor in graph.initializer}
        (relu,) = [reader for reader in graph.node if node.output[0] in reader.input]
        assert relu.op_type == "Relu"
        assert all(producers.get(name) != "QuantizeLinear" for name in relu.output)


def test_no_relu_follows_a_signed_range(traced: Traced) -> None:
    """A Conv quantised over [min, max] before a ReLU would throw half of its 256 steps away."""
    nodes = onnx.load(traced.files["int8"]).graph.node
    producers = {output: node for node in nodes for output in node.output}
    for node in nodes:
        if node.op_type == "Relu":
            assert producers[node.input[0]].op_type != "DequantizeLinear"


def test_large_weights_in_float32_are_stored_as_float16(tmp_path: Path) -> None:
    """The answer stays float32, and nearly the same; small weights stay as they are."""
    random = np.random.default_rng(0)
    weights = {"large": random.normal(size=(256, 256)), "small": random.normal(size=(256, 255))}
    nodes = [
        helper.make_node("MatMul", ["x", "large"], ["y"]),
        helper.make_node("MatMul", ["y", "small"], ["z"]),
    ]
    shapes = {"x": 256, "z": 255}
    x, z = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size]) for name, size in shapes.items())
    tensors = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "two", [x], [z], tensors)
    path = tmp_path / "two.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    store_in_half(path)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert kinds == {"large.half": TensorProto.FLOAT16, "small": TensorProto.FLOAT}
    inputs = random.normal(size=(3, 256)).astype(np.float32)
    (found,) = open_session(path).run(None, {"x": inputs})
    np.testing.assert_allclose(found, inputs @ weights["large"] @ weights["small"], atol=0.5)


def attribute(node: onnx.NodeProto, name: str) -> list[int]:
    return list(next(attribute.ints for attribute in node.attribute if attribute.name == name))
