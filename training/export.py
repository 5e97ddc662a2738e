"""Write a checkpoint as a model file: `python training/export.py RUN/checkpoint.pt --data market1501 --precision int8`.

The file is all that the service needs: preprocessing inside the graph, the contract in its metadata, its
expected answer to a generated pattern, and the figures that were measured on the file itself.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import get_args

import numpy as np
from rich.console import Console

from training.config import Config
from training.data import market1501
from training.data.dataset import Dataset, Sample
from training.data.images import read_crop
from training.modelfile.graph import export_graph
from training.modelfile.metadata import describe, measured, write_metadata
from training.modelfile.parity import CROPS, Crops, ExportError, Precision, Reference, check_parity
from training.modelfile.quantise import quantise
from training.network.stored import Checkpoint, load_checkpoint_model, read_checkpoint
from training.retrieval.onnx_model import OnnxModel
from training.retrieval.protocol import Evaluation, evaluate, file_sha256

CALIBRATION_CROPS = 256


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
    checkpoint: Checkpoint,
    data: Dataset,
    output: Path,
    precision: Precision,
    *,
    name: str | None = None,
    licence_notice: str | None = None,
    measure: bool = True,
    console: Console | None = None,
) -> Exported:
    """Write `checkpoint` to `output`, whole or not at all.

    Args:
        data: calibrates int8 (training part), checks parity and measures the file (test part).
        name: of the model; that of the data it was trained on and the precision if not given.
        licence_notice: what the training data allows; known for Market-1501.

    Raises:
        ValueError: a checkpoint without full-size epochs, or a picture that cannot be read.
        ExportError: the file's outputs are not PyTorch's.
    """
    config = checkpoint.config
    model = load_checkpoint_model(checkpoint)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".export-") as folder:
        path = Path(folder) / "fp32.onnx"
        export_graph(model, config, path)
        queries = list(islice(cycle(spread(data.query, CROPS)), CROPS))
        reference = Reference.of(model, crops_of(queries, config))
        check_parity(reference, path, "fp32")  # int8 is made of this file: its own bound is too wide to see all faults
        if precision == "int8":
            path = quantise(path, spread(data.train, CALIBRATION_CROPS), config)
            check_parity(reference, path, precision)
        metadata = describe(checkpoint, path, precision, name, licence_notice)
        write_metadata(path, metadata)
        evaluation = None
        if measure:
            evaluation = evaluate(OnnxModel(path), data, console=console)
            write_metadata(path, metadata | measured(evaluation))
            evaluation = replace(evaluation, model=str(output), sha256=file_sha256(path))
        path.replace(output)
    return Exported(output, evaluation)


def spread(samples: Sequence[Sample], count: int) -> list[Sample]:
    """`count` samples (or all) evenly over the sorted data set, so that every camera and many people are in it."""
    return [samples[i] for i in np.linspace(0, len(samples) - 1, min(count, len(samples)), dtype=int)]


def crops_of(samples: Sequence[Sample], config: Config) -> Crops:
    """uint8 [len(samples), H, W, 3]."""
    return np.stack([read_crop(sample, config.height, config.width) for sample in samples])


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 written, 1 the file failed its check, 2 bad input."""
    options = parse(argv)
    output = options.output or options.checkpoint.with_name(f"model-{options.precision}.onnx")
    try:
        exported = export(
            read_checkpoint(options.checkpoint),
            market1501.read(options.data),
            output,
            options.precision,
            name=options.name,
            licence_notice=options.licence_notice,
            measure=not options.no_evaluation,
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


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="data set in Market-1501 layout")
    parser.add_argument("--output", type=Path, help="default: beside the checkpoint")
    parser.add_argument("--precision", choices=get_args(Precision), default="int8")
    parser.add_argument("--name", help="of the model (default: its training data and precision)")
    parser.add_argument(
        "--licence-notice", metavar="TEXT", help="default: that of the data it was trained on, where it is known"
    )
    parser.add_argument("--no-evaluation", action="store_true", help="write no figures into the file")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
