"""Which part of a graph may be computed with fewer bits: what makes feature maps of feature maps."""

from __future__ import annotations

import onnx
from onnx import TensorProto

# The convolutions, and what lies between them.
MAP_OPERATORS = ("Conv", "Relu", "Add", "MaxPool")


def map_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes of MAP_OPERATORS whose result is a map, float32 [N, C, h, w], in the order of computation.

    The rest needs all its digits: the preprocessing, the attention's scores, unbounded sums, and its weights, the
    mean over the map, the projection, the BNNeck and the normalisation.
    """
    graph = onnx.shape_inference.infer_shapes(model).graph
    maps = {value.name for value in (*graph.value_info, *graph.output) if _is_map(value.type.tensor_type)}
    return [node for node in model.graph.node if node.op_type in MAP_OPERATORS and node.output[0] in maps]


def _is_map(kind: onnx.TypeProto.Tensor) -> bool:
    return kind.elem_type == TensorProto.FLOAT and len(kind.shape.dim) == 4
