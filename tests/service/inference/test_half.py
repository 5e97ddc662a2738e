"""Half precision and the end of quantisation, on graphs drawn up for it and on the tiny model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from service.inference.half import halve
from service.inference.model import ModelError, ModelFile
from tests.tiny_model import HEIGHT, WIDTH

RANDOM = np.random.default_rng(0)
WEIGHTS = RANDOM.integers(-64, 64, (4, 2, 1, 1), np.int8)
SCALES = np.array([0.01, 0.02, 0.03, 0.04], np.float32)
STEP = np.float32(0.05)


def graph(nodes: Sequence[onnx.NodeProto], constants: dict[str, NDArray[np.generic]]) -> onnx.ModelProto:
    """x float32 [N, 2, 4, 4] -> y float32 [N, 4, 4, 4]."""
    made = helper.make_graph(
        nodes,
        "quantised",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4, 4, 4])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def quantised(zero: NDArray[np.generic] | None) -> onnx.ModelProto:
    """A convolution with quantised weights, one scale a channel, whose result is rounded around `zero`."""
    point = ["zero"] if zero is not None else []
    nodes = [
        helper.make_node("DequantizeLinear", ["w.int8", "w.scale", "w.zero"], ["w"], axis=0),
        helper.make_node("Conv", ["x", "w"], ["raw"]),
        helper.make_node("QuantizeLinear", ["raw", "step", *point], ["raw.int8"]),
        helper.make_node("DequantizeLinear", ["raw.int8", "step", *point], ["y"]),
    ]
    constants = {"w.int8": WEIGHTS, "w.scale": SCALES, "w.zero": np.zeros(4, np.int8), "step": np.array(STEP)}
    return graph(nodes, {**constants, **({"zero": zero} if zero is not None else {})})


def run(model: onnx.ModelProto, x: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(["y"], {"x": x})
    return np.asarray(found)


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("zero", [np.array(0, np.uint8), np.array(-128, np.int8), None], ids=["uint8", "int8", "none"])
def test_what_cuts_negatives_off_becomes_a_relu(zero: NDArray[np.generic] | None) -> None:
    """The quantiser took the ReLU away where the rounding does its work."""
    model = quantised(zero)
    x = RANDOM.uniform(-1, 1, (3, 2, 4, 4)).astype(np.float32)
    expected = run(model, x)
    halve(model)
    assert "QuantizeLinear" not in kinds(model)
    assert "DequantizeLinear" not in kinds(model)
    assert kinds(model).count("Relu") == 1
    found = run(model, x)
    assert found.dtype == np.float32
    assert found.min() == 0
    assert np.abs(found - expected).max() <= STEP / 2 + 0.01


def test_a_rounding_that_keeps_the_sign_goes_without_a_trace() -> None:
    model = quantised(np.array(128, np.uint8))
    x = RANDOM.uniform(-1, 1, (3, 2, 4, 4)).astype(np.float32)
    expected = run(model, x)
    halve(model)
    assert "Relu" not in kinds(model)
    found = run(model, x)
    assert found.min() < 0
    assert np.abs(found - expected).max() <= STEP / 2 + 0.01


def test_weights_are_float16_numbers_and_their_quantised_form_is_gone() -> None:
    model = quantised(np.array(0, np.uint8))
    halve(model)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    (only,) = weights.values()
    assert only.dtype == np.float16
    assert np.allclose(only, WEIGHTS * SCALES.reshape(4, 1, 1, 1), rtol=1e-3)


def test_what_is_never_negative_gets_no_second_relu() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["raw"]),
        helper.make_node("Relu", ["raw"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["pooled"], kernel_shape=[1, 1]),
        helper.make_node("QuantizeLinear", ["pooled", "step"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "step"], ["d"]),
        helper.make_node("Conv", ["d", "v"], ["y"]),
    ]
    w, v = (RANDOM.normal(size=shape).astype(np.float32) for shape in ((4, 2, 1, 1), (4, 4, 1, 1)))
    model = graph(nodes, {"w": w, "v": v, "step": np.array(STEP)})
    halve(model)
    assert kinds(model).count("Relu") == 1


def test_scores_beyond_float16_stay_finite() -> None:
    """What is no map is computed in float32: a float16 ends at 65,504."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["map"]),
        helper.make_node("MatMul", ["map", "map"], ["y"]),
    ]
    model = graph(nodes, {"w": np.full((4, 2, 1, 1), 100, np.float32)})
    x = np.full((1, 2, 4, 4), 2, np.float32)
    halve(model)
    assert np.allclose(run(model, x), 640_000)


@pytest.mark.parametrize(
    ("nodes", "complaint"),
    [
        (
            [
                helper.make_node("QuantizeLinear", ["x", "step"], ["q"]),
                helper.make_node("ConvInteger", ["q", "w.int8"], ["i"]),
                helper.make_node("Cast", ["i"], ["y"], to=TensorProto.FLOAT),
            ],
            "read by other operators",
        ),
        (
            [
                helper.make_node("Cast", ["x"], ["q"], to=TensorProto.UINT8),
                helper.make_node("DequantizeLinear", ["q", "step"], ["d"]),
                helper.make_node("Conv", ["d", "w"], ["y"]),
            ],
            "quantised by an operator that is not known",
        ),
        (
            [
                helper.make_node("Identity", ["w.int8"], ["moving"]),
                helper.make_node("DequantizeLinear", ["w.int8", "x"], ["d"]),
                helper.make_node("Conv", ["x", "d"], ["y"]),
            ],
            "x is not a constant",
        ),
        ([helper.make_node("Conv", ["x", "nowhere"], ["y"])], "cannot be made fp16"),
    ],
)
def test_a_graph_of_another_kind_is_refused(nodes: list[onnx.NodeProto], complaint: str) -> None:
    constants = {"step": np.array(STEP), "w.int8": WEIGHTS, "w": WEIGHTS.astype(np.float32)}
    with pytest.raises(ModelError, match=complaint):
        halve(graph(nodes, constants))


def test_the_tiny_model_embeds_as_before(model_file: ModelFile) -> None:
    model = onnx.load_from_string(model_file.content)
    halve(model)
    crops = RANDOM.integers(0, 256, (5, HEIGHT, WIDTH, 3), np.uint8)
    outputs = []
    for content in (model_file.content, model.SerializeToString()):
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        assert [(one.name, one.type, one.shape) for one in session.get_inputs()] == [
            ("crops", "tensor(uint8)", ["N", HEIGHT, WIDTH, 3])
        ]
        assert {one.type for one in session.get_outputs()} == {"tensor(float)"}
        outputs.append(session.run(["embedding", "attention"], {"crops": crops}))
    assert (outputs[0][0] * outputs[1][0]).sum(axis=1).min() > 0.999
    assert np.abs(outputs[0][1] - outputs[1][1]).max() < 0.01
