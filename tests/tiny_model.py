"""A real, tiny model file, drawn up node by node: mean colours on a grid instead of a trained network.

It obeys the whole contract of a model file, computes in microseconds, and tells pictures of differently
dressed figures apart. A plain grey picture has no direction, and its embedding is NaN: a picture that fails in
the model and not before.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from service.inference.pattern import draw_pattern

HEIGHT, WIDTH = 64, 32
MAP_HEIGHT, MAP_WIDTH = 4, 2
POSITIONS = MAP_HEIGHT * MAP_WIDTH
DIM = 3 * POSITIONS

CURVE = {
    "false_match_rate": [1e-1, 1e-2, 1e-3, 1e-4, 1e-5],
    "distance": [0.30, 0.20, 0.15, 0.12, 0.10],
    "extrapolated": [False, False, False, True, True],
}

METADATA = {
    "format": "resight/1",
    "name": "tiny-colours",
    "architecture": "average-pool",
    "embedding_dim": str(DIM),
    "height": str(HEIGHT),
    "width": str(WIDTH),
    "map_height": str(MAP_HEIGHT),
    "map_width": str(MAP_WIDTH),
    "colour": "RGB",
    "resize": "pillow-bilinear",
    "distance": "euclidean/2",
    "precision": "fp32",
    "training_data": "none",
    "licence_notice": "Free to use; not trained on anybody.",
    "protocol": "none",
    "metrics": json.dumps({"mAP": 0.5}),
    "config_sha256": "0" * 64,
    "impostor_curve": json.dumps(CURVE),
    "created": "2026-01-01T00:00:00Z",
    "source_revision": "test",
}


def write_tiny_model(
    path: Path,
    metadata: Mapping[str, str | None] | None = None,
    names: Mapping[str, str] | None = None,
    batch: int | str = "N",
    colours: Sequence[float] = (1, 1, 1),
) -> Path:
    """Writes the model to `path`.

    To break the contract, `metadata` replaces fields (None removes one), `names` renames input and outputs,
    and a number as `batch` makes the first axis fixed. Other weights for `colours` make another model.
    """
    called = {name: (names or {}).get(name, name) for name in ("crops", "embedding", "attention")}
    model = _model(called, batch, colours)
    fields: dict[str, str | None] = {**METADATA, "test_embedding": _test_embedding(model, called), **(metadata or {})}
    for key, value in fields.items():
        if value is not None:
            model.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def _model(called: Mapping[str, str], batch: int | str, colours: Sequence[float]) -> onnx.ModelProto:
    grid = [HEIGHT // MAP_HEIGHT, WIDTH // MAP_WIDTH]
    nodes = [
        helper.make_node("Cast", [called["crops"]], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "scale"], ["scaled"]),
        helper.make_node("AveragePool", ["scaled"], ["map"], kernel_shape=grid, strides=grid),
        helper.make_node("Flatten", ["map"], ["flat"]),
        helper.make_node("ReduceMean", ["flat", "last"], ["mean"], keepdims=1),
        helper.make_node("Sub", ["flat", "mean"], ["centred"]),
        helper.make_node("ReduceL2", ["centred", "last"], ["length"], keepdims=1),
        helper.make_node("Div", ["centred", "length"], [called["embedding"]]),
        helper.make_node("Reshape", ["map", "columns_shape"], ["columns"]),
        helper.make_node("Transpose", ["columns"], ["rows"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["rows", "columns"], ["similarity"]),
        helper.make_node("Softmax", ["similarity"], [called["attention"]], axis=-1),
    ]
    scale = np.diag(np.array(colours, np.float32)).reshape(3, 3, 1, 1) / 255
    constants = {"scale": scale, "last": np.array([1]), "columns_shape": np.array([0, 3, POSITIONS])}
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(called["crops"], TensorProto.UINT8, [batch, HEIGHT, WIDTH, 3])],
        [
            helper.make_tensor_value_info(called["embedding"], TensorProto.FLOAT, [batch, DIM]),
            helper.make_tensor_value_info(called["attention"], TensorProto.FLOAT, [batch, POSITIONS, POSITIONS]),
        ],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def in_ort_format(model: Path, target: Path) -> Path:
    """Writes the model to `target` in ONNX Runtime's own format, and returns `target`."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.optimized_model_filepath = str(target)
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    return target


def _test_embedding(model: onnx.ModelProto, called: Mapping[str, str]) -> str:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    crops = draw_pattern(HEIGHT, WIDTH)[None]
    (embedding,) = session.run([called["embedding"]], {called["crops"]: crops})
    return base64.b64encode(np.asarray(embedding, "<f4").tobytes()).decode()
