from __future__ import annotations

import onnx

from tests.training.modelfile.conftest import Traced
from training.modelfile.maps import MAP_OPERATORS, map_nodes


def test_only_what_makes_maps_of_maps_is_found(traced: Traced) -> None:
    model = onnx.load(traced.files["fp32"])
    found = map_nodes(model)
    assert {node.op_type for node in found} == set(MAP_OPERATORS)
    # Left out is the convolution over positions and its ReLU, which make spatial attention's scores.
    others = [node.op_type for node in model.graph.node if node.op_type in MAP_OPERATORS and node not in found]
    assert others == (["Conv", "Relu"] if traced.config.attention == "spatial" else [])


def test_they_are_in_the_order_of_computation(traced: Traced) -> None:
    model = onnx.load(traced.files["fp32"])
    order = [node.name for node in model.graph.node]
    places = [order.index(node.name) for node in map_nodes(model)]
    assert places == sorted(places)
