"""Write a checkpoint as a model file: `python training/export.py RUN/checkpoint.pt --data market1501 --precision int8`.

The file is all that the service needs: preprocessing inside the graph, the contract in its metadata, its
expected answer to a generated pattern, and the figures that were measured on the file itself.
"""

from __future__ import annotations

import argparse
import base64
import json
import logging
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from rich.console import Console

from training.config import Config
from training.data import market1501
from training.data.dataset import Dataset, Sample
from training.data.images import to_crop
from training.evaluate import PROTOCOLS, Evaluation, evaluate_onnx
from training.loop.runlog import source_revision
from training.network.model import Embedder, load_checkpoint_model, read_checkpoint
from training.pattern import draw_pattern
from training.retrieval.onnx_model import FORMAT, open_session

Precision = Literal["fp32", "int8"]
Crops = NDArray[np.uint8]
# Cosine of the file's embeddings with PyTorch's, the worst of the tried crops.
PARITY: dict[Precision, float] = {"fp32": 0.99999, "int8": 0.9}
CALIBRATION_CROPS = 256
LICENCE_NOTICES = {
    "Market-1501": "Trained on Market-1501: for research only; no commercial use and no distribution of the data set. "
    "Cite Zheng et al., Scalable Person Re-identification: A Benchmark, ICCV 2015."
}


class ExportError(RuntimeError):
    """The exported file is not the network that was trained; nothing was written."""


@dataclass(frozen=True)
class Exported:
    """Where the file is and what was measured on it (None with `--no-evaluation`)."""

    path: Path
    evaluation: Evaluation | None

    def summary(self) -> str:
        size = f"{self.path}: {self.path.stat().st_size / 1e6:.1f} MB"
        if self.evaluation is None:
            return size
        metrics = self.evaluation.metrics
        figures = f"rank-1 {100 * metrics.rank(1):.2f}, mAP {100 * metrics.mAP:.2f}"
        return f"{size}, {figures} on {self.evaluation.data}"


def export(
    checkpoint: Path,
    data: Path | Dataset,
    output: Path,
    precision: Precision,
    *,
    name: str | None = None,
    licence_notice: str | None = None,
    evaluate: bool = True,
    console: Console | None = None,
) -> Exported:
    """Write `checkpoint` to `output`, whole or not at all.

    Args:
        data: calibrates int8 (training part), checks parity and measures the file (test part).
        name: of the model; the output's stem if not given.

    Raises:
        ValueError: no checkpoint, or a data set that cannot be read.
        ExportError: the file's embeddings differ from PyTorch's by more than PARITY allows.
    """
    dataset = data if isinstance(data, Dataset) else market1501.read(data)
    state = read_checkpoint(checkpoint)
    config = Config.from_dict(state["config"])
    model = load_checkpoint_model(checkpoint)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".export-") as folder:
        path = Path(folder) / "fp32.onnx"
        export_graph(model, config, path)
        if precision == "int8":
            path = quantise(path, spread(dataset.train, CALIBRATION_CROPS), config)
        check_parity(model, path, crops_of(spread(dataset.query, 7), config), precision)
        metadata = describe(state, config, dataset, path, model) | {
            "name": name or output.stem,
            "precision": precision,
            "licence_notice": licence_notice or LICENCE_NOTICES.get(dataset.name, f"Trained on {dataset.name}."),
        }
        write_metadata(path, metadata)
        evaluation = None
        if evaluate:
            evaluation = evaluate_onnx(path, dataset, console=console)
            write_metadata(path, metadata | measured(evaluation))
        path.replace(output)
    return Exported(output, evaluation)


def export_graph(model: Embedder, config: Config, path: Path) -> None:
    """The fp32 graph: crops uint8 [N, H, W, 3] -> embedding [N, D], attention [N, L, L], N free."""
    example = torch.zeros((2, config.height, config.width, 3), dtype=torch.uint8)
    with warnings.catch_warnings(), Quiet("torch.onnx", "onnxscript", "onnx_ir"):
        warnings.simplefilter("ignore")  # of PyTorch's own exporter about itself
        torch.onnx.export(
            model,
            (example,),
            path,
            dynamo=True,
            input_names=["crops"],
            output_names=["embedding", "attention"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            verbose=False,
        )


def quantise(fp32: Path, samples: Sequence[Sample], config: Config) -> Path:
    """Static int8: QDQ, activations uint8, weights int8 per channel, calibrated on `samples`.

    Weights use 7 bits (`reduce_range`), because a CPU without VNNI adds pairs of U8S8 products in 16
    bits, where 8-bit weights saturate: the same file must give the same embedding everywhere.
    Only the convolutional part is quantised; the attention's products stay in float32.
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
            op_types_to_quantize=["Conv", "Add", "MaxPool"],
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
    return path


class CalibrationCrops(CalibrationDataReader):  # type: ignore[misc]
    """Crops for ONNX Runtime's calibration, in batches of 8."""

    def __init__(self, samples: Sequence[Sample], config: Config) -> None:
        self.batches: Iterator[dict[str, Crops]] = (
            {"crops": crops_of(samples[first : first + 8], config)} for first in range(0, len(samples), 8)
        )

    def get_next(self) -> dict[str, Crops] | None:
        return next(self.batches, None)


def check_parity(model: Embedder, path: Path, crops: Crops, precision: Precision) -> None:
    """Compare the file with PyTorch at batch 1 and at a batch of all `crops`, uint8 [n, H, W, 3]."""
    with torch.inference_mode():
        expected = model(torch.from_numpy(crops))[0].numpy()
    session = open_session(path)
    for batch in (1, len(crops)):
        found = np.concatenate(
            [
                session.run(["embedding"], {"crops": crops[first : first + batch]})[0]
                for first in range(0, len(crops), batch)
            ]
        )
        worst = float((found * expected).sum(axis=1).min())
        if not worst >= PARITY[precision]:  # also true for NaN
            raise ExportError(
                f"at batch {batch} the {precision} file's embedding has cosine {worst:.6f} with PyTorch's, "
                f"at least {PARITY[precision]} is needed: nothing was written"
            )


def describe(state: dict[str, Any], config: Config, data: Dataset, path: Path, model: Embedder) -> dict[str, str]:
    """The metadata that does not depend on the caller's words."""
    pattern = draw_pattern(config.height, config.width)[None]
    embedding, attention = open_session(path).run(["embedding", "attention"], {"crops": pattern})
    positions = attention.shape[1]
    map_width = round((positions * config.width / config.height) ** 0.5)
    train = state["data"]["train"]
    size = f"{train['images']:,} pictures of {train['identities']:,} identities, {train['cameras']} cameras"
    distilled = "" if state["teacher"] == "none" else f"; distilled from {state['teacher']}"
    return {
        "format": FORMAT,
        "architecture": architecture(config),
        "embedding_dim": str(embedding.shape[1]),
        "height": str(config.height),
        "width": str(config.width),
        "map_height": str(positions // map_width),
        "map_width": str(map_width),
        "colour": "RGB",
        "resize": "pillow-bilinear",
        "distance": "euclidean/2",
        "training_data": f"{state['data']['name']}: {size}; {state['epoch']} epochs; "
        f"backbone {state['initialisation']}{distilled}",
        "protocol": "not evaluated",
        "config_sha256": config.sha256(),
        "test_embedding": base64.b64encode(embedding[0].astype("<f4").tobytes()).decode(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "source_revision": source_revision(),
    }


def architecture(config: Config) -> str:
    blocks = "resnet50" if config.layers == (3, 4, 6, 3) and config.base_width == 64 else f"resnet{config.layers}"
    value = "full" if config.value_reduction == 1 else f"1/{config.value_reduction}"
    neck = ", bnneck" if config.bnneck else ""
    return f"{blocks}, last stride {config.last_stride}, self-attention (softmax, value path {value}){neck}"


def measured(evaluation: Evaluation) -> dict[str, str]:
    """What was measured on the file, as metadata."""
    metrics = evaluation.metrics
    figures = {f"rank{k}": metrics.rank(k) for k in (1, 5, 10, 20)}
    figures |= {"mAP": metrics.mAP, "mAP_official": metrics.mAP_official, "mINP": metrics.mINP}
    return {
        "protocol": f"{evaluation.data} test part: {PROTOCOLS[evaluation.split]}",
        "metrics": json.dumps({key: round(float(value), 6) for key, value in figures.items()}),
    }


def write_metadata(path: Path, metadata: dict[str, str]) -> None:
    model = onnx.load(path)
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def spread(samples: Sequence[Sample], count: int) -> list[Sample]:
    """`count` samples (or all) evenly over the sorted data set, so that every camera and many people are in it."""
    return [samples[i] for i in np.linspace(0, len(samples) - 1, min(count, len(samples)), dtype=int)]


def crops_of(samples: Sequence[Sample], config: Config) -> Crops:
    """uint8 [len(samples), H, W, 3]."""
    return np.stack([to_crop(sample.read(), config.height, config.width) for sample in samples])


class Quiet:
    """Hold back what the named loggers say below an error; "" is the root logger."""

    def __init__(self, *names: str) -> None:
        self.loggers = [logging.getLogger(name) for name in names]
        self.levels = [logger.level for logger in self.loggers]

    def __enter__(self) -> None:
        for logger in self.loggers:
            logger.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        for logger, level in zip(self.loggers, self.levels, strict=True):
            logger.setLevel(level)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 written, 1 the file failed its check, 2 bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="data set in Market-1501 layout")
    parser.add_argument("--output", type=Path, help="default: beside the checkpoint")
    parser.add_argument("--precision", choices=get_args(Precision), default="int8")
    parser.add_argument("--name", help="of the model (default: the output's name)")
    parser.add_argument("--licence-notice", metavar="TEXT", help="default: the data set's, where it is known")
    parser.add_argument("--no-evaluation", action="store_true", help="write no figures into the file")
    options = parser.parse_args(argv)
    output = options.output or options.checkpoint.with_name(f"model-{options.precision}.onnx")
    try:
        exported = export(
            options.checkpoint,
            options.data,
            output,
            options.precision,
            name=options.name,
            licence_notice=options.licence_notice,
            evaluate=not options.no_evaluation,
            console=Console(stderr=True),
        )
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ExportError as error:
        print(f"refused: {error}", file=sys.stderr)
        return 1
    print(exported.summary())
    return 0


if __name__ == "__main__":
    sys.exit(main())
