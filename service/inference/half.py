"""What a GPU runs of a model file: the same network in half precision, its int8 quantisation undone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from service.inference.model import ModelError

# Convolutions and what lies between them: nearly all of the work. The rest needs float32 (see `_Halving`).
MAP_OPERATORS = frozenset({"Conv", "Relu", "Add", "MaxPool"})
KEEP_SIGN = frozenset({"MaxPool", "AveragePool", "Reshape", "Transpose", "Flatten"})
NEVER_NEGATIVE = frozenset({"Relu", "Softmax", "Sigmoid"})


def halve(model: onnx.ModelProto) -> None:
    """Rewrites `model` in place: quantised constants become numbers, feature maps float16; inputs and outputs stay.

    Raises ModelError where the graph is not one that this knows how to rewrite.
    """
    try:
        _Dequantising(model.graph).apply()
        _Halving(model).apply()
        onnx.checker.check_model(model, full_check=True)
    except ModelError:
        raise
    except Exception as error:  # onnx's own errors share no base class
        raise ModelError(f"its graph cannot be made fp16: {error}") from error


class _Dequantising:
    """One graph being freed of QuantizeLinear and DequantizeLinear.

    Constants become the numbers that they stand for. Of a pair around an activation is left what it does besides
    rounding: where zero is the least value, it cuts off what is negative, and the quantiser took the ReLU away that
    did so before. The upper bound, the largest value of the calibration, is given up: it is an artefact, and a ReLU
    runs within the convolution where a clip does not.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.quantised: dict[str, onnx.NodeProto] = {}  # by the name of what it makes
        self.renamed: dict[str, str] = {}
        self.not_negative: set[str] = set()

    def apply(self) -> None:
        nodes = [kept for node in self.graph.node for kept in self._rewritten(node)]
        lost = [tensor.name for tensor in self.graph.output if tensor.name in self.renamed]
        nodes.extend(helper.make_node("Identity", [self.renamed[name]], [name]) for name in lost)
        read = {name for node in nodes for name in node.input}
        constants = [tensor for tensor in self.constants.values() if tensor.name in read]
        if astray := read & set(self.quantised):
            raise ModelError(f"its quantised tensors {', '.join(sorted(astray))} are read by other operators")
        del self.graph.node[:], self.graph.initializer[:], self.graph.value_info[:]
        self.graph.node.extend(nodes)
        self.graph.initializer.extend(constants)

    def _rewritten(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        for n, name in enumerate(node.input):
            node.input[n] = self.renamed.get(name, name)
        if node.op_type == "QuantizeLinear":
            self.quantised[node.output[0]] = node
        elif node.op_type == "DequantizeLinear":
            yield from self._dequantised(node)
        else:
            if node.op_type in NEVER_NEGATIVE or (node.op_type in KEEP_SIGN and node.input[0] in self.not_negative):
                self.not_negative.update(node.output)
            yield node

    def _dequantised(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        source, result = node.input[0], node.output[0]
        if source in self.constants:
            self.constants[result] = numpy_helper.from_array(self._number(node), result)
        elif source not in self.quantised:
            raise ModelError(f"its tensor {source} is quantised by an operator that is not known")
        else:
            quantise = self.quantised[source]
            (original,) = quantise.input[:1]
            if original in self.not_negative or not self._cuts_negatives(quantise):
                self.renamed[result] = original
                return
            positive = f"{original}.positive"
            if positive not in self.not_negative:
                self.not_negative.add(positive)
                yield helper.make_node("Relu", [original], [positive], positive)
            self.renamed[result] = positive

    def _cuts_negatives(self, quantise: onnx.NodeProto) -> bool:
        if len(quantise.input) < 3 or not quantise.input[2]:
            return True  # uint8, from zero
        zero = self._constant(quantise.input[2])
        return bool(np.all(zero == np.iinfo(zero.dtype).min))

    def _number(self, node: onnx.NodeProto) -> NDArray[np.float32]:
        """(quantised - zero point) * scale, which are one for the tensor or one for each place along `axis`."""
        attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        if attributes.get("block_size"):
            raise ModelError(f"its weights {node.input[0]} are quantised by blocks")
        value, scale = self._constant(node.input[0]), self._constant(node.input[1])
        shape = [1] * value.ndim
        if scale.size > 1:
            shape[attributes.get("axis", 1)] = scale.size
        number = value.astype(np.float32)
        if len(node.input) > 2 and node.input[2]:
            number -= self._constant(node.input[2]).astype(np.float32).reshape(shape if scale.size > 1 else [])
        return number * scale.astype(np.float32).reshape(shape if scale.size > 1 else [])

    def _constant(self, name: str) -> NDArray[Any]:
        if name not in self.constants:
            raise ModelError(f"its scale or zero point {name} is not a constant")
        return numpy_helper.to_array(self.constants[name])


class _Halving:
    """One graph whose feature maps become float16, with the weights of what makes them.

    In float32 stay the preprocessing, the attention's scores (sums without bound, and float16 ends at 65,504) and
    weights, the mean over the map, the projection, the BNNeck and the normalisation. A tensor has a name in float32,
    its own, and may have another in float16; a cast makes the one that is missing, once, before its first reader.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.maps = _maps(model)
        self.weights = {tensor.name: tensor for tensor in self.graph.initializer}
        self.known = {*self.weights, *(tensor.name for tensor in self.graph.input)}
        self.nodes: list[onnx.NodeProto] = []
        self.half_weights: list[onnx.TensorProto] = []

    def apply(self) -> None:
        for node in self.graph.node:
            half = node.output[0] in self.maps
            for n, name in enumerate(node.input):
                if name:  # an optional input that is left out has none
                    node.input[n] = self._in_half(name) if half else self._in_full(name)
            if half:
                node.output[0] = _half(node.output[0])
            self.known.update(node.output)
            self.nodes.append(node)
        for tensor in self.graph.output:
            self._in_full(tensor.name)
        self._replace()

    def _in_half(self, name: str) -> str:
        half = _half(name)
        if half not in self.known:
            if name in self.weights:
                value = numpy_helper.to_array(self.weights[name]).astype(np.float16)
                self.half_weights.append(numpy_helper.from_array(value, half))
            else:
                self._cast(self._in_full(name), half, TensorProto.FLOAT16)
            self.known.add(half)
        return half

    def _in_full(self, name: str) -> str:
        """The tensor's own name; only of maps is it not yet known."""
        if name not in self.known:
            self._cast(_half(name), name, TensorProto.FLOAT)
            self.known.add(name)
        return name

    def _cast(self, source: str, target: str, kind: int) -> None:
        self.nodes.append(helper.make_node("Cast", [source], [target], f"cast to {target}", to=kind))

    def _replace(self) -> None:
        read = {name for node in self.nodes for name in node.input}
        kept = [tensor for tensor in self.weights.values() if tensor.name in read]
        del self.graph.node[:], self.graph.initializer[:], self.graph.value_info[:]
        self.graph.node.extend(self.nodes)
        self.graph.initializer.extend([*kept, *self.half_weights])


def _maps(model: onnx.ModelProto) -> set[str]:
    """What MAP_OPERATORS make of type float32 [N, C, h, w]."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    floats = {
        value.name
        for value in (*graph.value_info, *graph.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT and len(value.type.tensor_type.shape.dim) == 4
    }
    made = {node.output[0] for node in model.graph.node if node.op_type in MAP_OPERATORS}
    return made & floats


def _half(name: str) -> str:
    return f"{name}.half"
