"""A network that is drawn up node by node: it embeds a crop as the mean colours of its cells, whatever its input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from training.data.dataset import Sample
from training.data.images import to_crop
from training.retrieval.onnx_model import INPUT_LAYOUTS, OWN_LAYOUT, InputLayout

HEIGHT, WIDTH = 64, 32
CELL = 16  # the embedding is the mean colour of each cell of this many pixels


def write_own_model(path: Path) -> Path:
    """Write it as one of our files, which tells its input itself."""
    metadata = {"format": "resight/1", "height": str(HEIGHT), "width": str(WIDTH)}
    return write_model(path, INPUT_LAYOUTS[OWN_LAYOUT], TensorProto.UINT8, metadata, outputs=("embedding", "attention"))


def write_model(
    path: Path,
    layout: InputLayout,
    element: int = TensorProto.FLOAT,
    metadata: dict[str, str] | None = None,
    batch: int | str = "n",
    size: tuple[int | str, int | str] = (HEIGHT, WIDTH),
    outputs: Sequence[str] = ("embedding",),
) -> Path:
    """Write a network of cell means that undoes `layout` first: all of them embed a crop alike, as [N, D, 1, 1]."""
    shape = [batch, 3, *size] if layout.channels_first else [batch, *size, 3]
    constants: dict[str, NDArray[Any]] = {
        "std": np.asarray(layout.std, np.float32).reshape(1, 3, 1, 1),
        "mean": np.asarray(layout.mean, np.float32).reshape(1, 3, 1, 1),
        "scale": np.asarray(layout.scale * 255, np.float32),
        "grey": np.asarray(0.5, np.float32),
        "order": np.asarray([2, 1, 0] if layout.bgr else [0, 1, 2], np.int64),
        "shape": np.asarray([0, -1, 1, 1], np.int64),
    }
    to_planes = helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2])
    if layout.channels_first:
        to_planes = helper.make_node("Identity", ["float"], ["planes"])
    nodes = [
        helper.make_node("Cast", ["crops"], ["float"], to=TensorProto.FLOAT),
        to_planes,
        helper.make_node("Mul", ["planes", "std"], ["scaled"]),
        helper.make_node("Add", ["scaled", "mean"], ["shifted"]),
        helper.make_node("Div", ["shifted", "scale"], ["unit"]),
        helper.make_node("Gather", ["unit", "order"], ["rgb"], axis=1),
        helper.make_node("Sub", ["rgb", "grey"], ["centred"]),
        helper.make_node("AveragePool", ["centred"], ["cells"], kernel_shape=[CELL] * 2, strides=[CELL] * 2),
        helper.make_node("Reshape", ["cells", "shape"], [outputs[0]]),
        *(helper.make_node("Identity", ["cells"], [name]) for name in outputs[1:]),
    ]
    graph = helper.make_graph(
        nodes,
        "cells",
        [helper.make_tensor_value_info("crops", element, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return path


def cell_means(sample: Sample) -> NDArray[np.float32]:
    """What the network computes, without the network."""
    crop = to_crop(sample.read(), HEIGHT, WIDTH).astype(np.float32) / 255 - np.float32(0.5)
    cells = crop.reshape(HEIGHT // CELL, CELL, WIDTH // CELL, CELL, 3).mean((1, 3))
    return np.asarray(cells.transpose(2, 0, 1).ravel(), np.float32)


def unit(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True), np.float32)
