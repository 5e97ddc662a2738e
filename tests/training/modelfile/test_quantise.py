from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from tests.training.modelfile.conftest import Traced


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


def attribute(node: onnx.NodeProto, name: str) -> list[int]:
    return list(next(attribute.ints for attribute in node.attribute if attribute.name == name))
