"""Half precision of a model file: weights and maps in float16, the rest as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from training.modelfile.maps import map_nodes


def halve(fp32: Path) -> Path:
    """Write the fp16 file beside an fp32 one: `map_nodes` in float16 with their weights, input and outputs as before.

    ONNX Runtime's own converter is not used: it rounds to float16 between any two operators that are kept in
    float32, where a score above 65,504 becomes infinite.
    """
    model = onnx.load(fp32)
    _Halving(model).apply()
    onnx.checker.check_model(model, full_check=True)
    path = fp32.with_name("fp16.onnx")
    onnx.save(model, path)
    return path


class _Halving:
    """One graph being rewritten. A tensor has a name in float32, its own, and may have another in float16; a cast
    makes the one that is missing, once, before its first reader."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.half_outputs = {node.output[0] for node in map_nodes(model)}
        self.weights = {tensor.name: tensor for tensor in self.graph.initializer}
        self.known = {*self.weights, *(tensor.name for tensor in self.graph.input)}
        self.nodes: list[onnx.NodeProto] = []
        self.half_weights: list[onnx.TensorProto] = []

    def apply(self) -> None:
        for node in self.graph.node:
            half = node.output[0] in self.half_outputs
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
        """The float16 name of a float tensor, which exists from here on."""
        half = _half(name)
        if half not in self.known:
            if name in self.weights:
                value = numpy_helper.to_array(self.weights[name]).astype(np.float16)
                self.half_weights.append(numpy_helper.from_array(value, half))
            else:
                self._cast(name, half, TensorProto.FLOAT16)
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
        """Put the new nodes and weights in; leave out weights that nobody reads any longer and types that changed."""
        read = {name for node in self.nodes for name in node.input}
        kept = [tensor for tensor in self.weights.values() if tensor.name in read]
        nodes, weights = list(self.nodes), [*kept, *self.half_weights]
        del self.graph.node[:], self.graph.initializer[:], self.graph.value_info[:]
        self.graph.node.extend(nodes)
        self.graph.initializer.extend(weights)


def _half(name: str) -> str:
    return f"{name}.half"
