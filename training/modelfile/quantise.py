"""Static int8 quantisation of a model file (ONNX Runtime)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from training.config import Config
from training.data.dataset import Sample
from training.data.images import read_crop
from training.modelfile.graph import Quiet
from training.modelfile.maps import MAP_OPERATORS, map_nodes

LARGE = 2**16  # values


def quantise(fp32: Path, samples: Sequence[Sample], config: Config) -> Path:
    """Static int8: QDQ, activations uint8, weights int8 per channel, calibrated on `samples`.

    Quantised are `map_nodes`, the attention's f, g and h among them, without the first convolution, whose
    rounding every later layer inherits. ReLU is one of them so that it disappears: the convolution before it is
    then quantised by the range of what is left, [0, max], not by a signed one whose lower half it throws away.

    Weights use 7 bits (`reduce_range`), because a CPU without VNNI adds pairs of U8S8 products in 16
    bits, where 8-bit weights saturate: the same file must give the same embedding everywhere.
    """
    prepared, path = fp32.with_name("prepared.onnx"), fp32.with_name("int8.onnx")
    with warnings.catch_warnings(), Quiet(""):
        warnings.simplefilter("ignore")
        quant_pre_process(fp32, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            path,
            CalibrationCrops(samples, config),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(MAP_OPERATORS),
            nodes_to_exclude=in_float32(onnx.load(prepared)),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
    store_in_half(path)
    return path


def store_in_half(path: Path) -> None:
    """Store large weights that are computed with in float32, a projection's, as float16, in place: half the room, and
    the embeddings' cosine stays within a millionth of 1. ONNX Runtime casts them back once, when it loads the file."""
    model = onnx.load(path)
    graph = model.graph
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and math.prod(tensor.dims) >= LARGE:
            name, half = tensor.name, f"{tensor.name}.half"
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), half))
            graph.node.insert(0, helper.make_node("Cast", [half], [name], f"cast of {name}", to=TensorProto.FLOAT))
    onnx.save(model, path)


def in_float32(model: onnx.ModelProto) -> list[str]:
    """The names of the nodes that are not quantised though their type is one of MAP_OPERATORS."""
    maps = map_nodes(model)
    first = next(node for node in maps if node.op_type == "Conv")
    quantised = {node.name for node in maps} - {first.name}
    return [node.name for node in model.graph.node if node.op_type in MAP_OPERATORS and node.name not in quantised]


class CalibrationCrops(CalibrationDataReader):  # type: ignore[misc]
    """Crops for ONNX Runtime's calibration, in batches of 8."""

    def __init__(self, samples: Sequence[Sample], config: Config) -> None:
        self.batches: Iterator[dict[str, NDArray[np.uint8]]] = (
            {"crops": np.stack([read_crop(s, config.height, config.width) for s in samples[first : first + 8]])}
            for first in range(0, len(samples), 8)
        )

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        return next(self.batches, None)
