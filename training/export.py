"""Write a checkpoint as a model file: `python training/export.py RUN/checkpoint.pt --data market1501 --precision int8`.

The file is all that the service needs: preprocessing inside the graph, the contract in its metadata, its
expected answer to a generated pattern, and the figures and the distances between strangers that were measured
on the file itself.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import get_args

from training.packages import INTERRUPTED, needed, stop_on_sigterm

with needed(__name__):
    import numpy as np
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from training.arguments import add_excluded_cameras, path, terminal, words
    from training.config import Config
    from training.data.dataset import Dataset, Sample, people, spread
    from training.data.holdout import hold_out, stranger_pairs, without_cameras
    from training.data.images import read_crop
    from training.data.reading import LAYOUTS, read
    from training.loop.files import NotWritten, make_folder
    from training.loop.runlog import data_fingerprint
    from training.modelfile.graph import export_graph
    from training.modelfile.half import halve
    from training.modelfile.metadata import describe, measured, write_metadata
    from training.modelfile.parity import CROPS, Crops, ExportError, Precision, Reference, check_parity
    from training.modelfile.quantise import quantise
    from training.network.model import Embedder
    from training.network.stored import Checkpoint, load_checkpoint_model, read_checkpoint
    from training.printing import printing
    from training.retrieval.calibration import FEWEST_PAIRS, doubt, impostor_curve
    from training.retrieval.embedding import embed_samples
    from training.retrieval.onnx_model import OnnxModel
    from training.retrieval.protocol import Evaluation, evaluate, file_sha256

DEFAULT_PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")  # of a training run; each is evaluated, which takes time
CALIBRATION_CROPS = 256
VERDICTLESS = "with this file the service gives no verdict unless RESIGHT_MATCH_DISTANCE is set"


@dataclass(frozen=True)
class TrainPart:
    """The training pictures of a data set: what the network learnt from, and the identities that it never saw."""

    learnt: tuple[Sample, ...]
    held_out: tuple[Sample, ...]  # to measure distances between strangers on
    reason: str = ""  # why there are none

    @classmethod
    def of(cls, checkpoint: Checkpoint, data: Dataset) -> TrainPart:
        """Nobody is held out of data that the network was not trained on: all of it is as good to calibrate int8."""
        config = checkpoint.config
        if not config.calibration_identities:
            reason = "no identities were held out of training (--set calibration_identities=N holds N out of a run)"
            return cls(data.train, (), reason)
        if not is_trained_on(checkpoint, data):
            return cls(data.train, (), f"the held-out identities are of {checkpoint.data_name}, not of this data")
        learnt, held_out = hold_out(data.train, config.calibration_identities, config.seed)
        if stranger_pairs(held_out) < FEWEST_PAIRS:
            return cls(learnt, (), f"the held-out pictures make less than {FEWEST_PAIRS} pairs of different people")
        return cls(learnt, held_out)

    def curve(self) -> str:
        """What the impostor-distance curve is measured on, or why there is none."""
        if self.reason:
            return f"no impostor-distance curve: {self.reason}; {VERDICTLESS}"
        return f"impostor-distance curve of {people(self.held_out)} held-out identities"


@dataclass(frozen=True)
class Exported:
    """Where the file is and what was measured on it (None with `--no-evaluation`)."""

    path: Path
    evaluation: Evaluation | None
    curve: str  # of impostor distances: what it was measured on, or why there is none
    warnings: tuple[str, ...] = ()  # what speaks against the file, a sentence each

    def summary(self) -> str:
        size = f"{self.path}: {self.path.stat().st_size / 1e6:.1f} MB"
        if self.evaluation is None:
            return f"{size}; {self.curve}"
        metrics = self.evaluation.metrics
        figures = f"rank-1 {100 * metrics.rank(1):.2f}, mAP {100 * metrics.mAP:.2f}"
        return f"{size}, {figures} on {self.evaluation.data}; {self.curve}"


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
        data: calibrates int8 (training part), checks parity and measures the file (test part). Where it is what the
            checkpoint was trained on, the identities held out of training give the impostor-distance curve.
        name: of the model; that of the data it was trained on and the precision if not given.
        licence_notice: what the training data allows; known for the published data sets.
        measure: evaluate the file on the test part.

    Raises:
        ValueError: a checkpoint without full-size epochs, or a picture that cannot be read.
        ExportError: the file's outputs are not PyTorch's.
        NotWritten: the disk is full, or the folder cannot be written.
    """
    config = checkpoint.config
    model = load_checkpoint_model(checkpoint)
    part = TrainPart.of(checkpoint, data)
    make_folder(output.parent)
    with told(output), tempfile.TemporaryDirectory(dir=output.parent, prefix=".export-") as folder:
        written = write_checked(model, config, Path(folder), precision, data.query, part.learnt, console)
        metadata = describe(checkpoint, written, precision, name, licence_notice)
        write_metadata(written, metadata)
        file = OnnxModel(written)
        metadata |= measure_impostors(file, part.held_out, console)
        evaluation = evaluate(file, data, console=console) if measure else None
        write_metadata(written, metadata | (measured(evaluation) if evaluation else {}))
        if evaluation:
            evaluation = replace(evaluation, model=str(output), sha256=file_sha256(written))
        written.replace(output)
    doubts = (doubt(people(part.held_out)), foreign_calibration(checkpoint, data) if precision == "int8" else None)
    return Exported(output, evaluation, part.curve(), tuple(filter(None, doubts)))


def is_trained_on(checkpoint: Checkpoint, data: Dataset) -> bool:
    """Whether the run learnt from this training part."""
    return bool(data_fingerprint(data)["sha256"] == checkpoint.state["data"]["sha256"])


def foreign_calibration(checkpoint: Checkpoint, data: Dataset) -> str | None:
    """What is to be said of int8 calibrated on this data; None where the run learnt from it."""
    if is_trained_on(checkpoint, data):
        return None
    return (
        f"int8 is calibrated on training pictures of {data.name}, which are not those that the run learnt from "
        f"({checkpoint.data_name}): its figures may suffer; give the --data, --exclude-camera and --ignore-cameras of "
        "the training"
    )


@contextmanager
def told(output: Path) -> Iterator[None]:
    """A failed write, which may name no file or a temporary one, is one of `output`."""
    try:
        yield
    except OSError as error:
        raise NotWritten(f"{output} could not be written ({error})") from error


def write_checked(
    model: Embedder,
    config: Config,
    folder: Path,
    precision: Precision,
    queries: Sequence[Sample],
    calibration: Sequence[Sample],
    console: Console | None = None,
) -> Path:
    """The model's file of that precision, without metadata, in `folder`; raises ExportError as `check_parity` does."""
    file = folder / "fp32.onnx"
    with stage("converting to ONNX", console):
        export_graph(model, config, file)
    with stage("comparing it with PyTorch", console):
        crops = crops_of(list(islice(cycle(spread(queries, CROPS)), CROPS)), config)
        reference = Reference.of(model, crops)
        # int8's own bound is too wide to see all faults of the file it is made of.
        check_parity(reference, file, "fp32")
    if precision == "fp32":
        return file
    with stage(f"making {precision} of it", console):
        file = halve(file) if precision == "fp16" else quantise(file, spread(calibration, CALIBRATION_CROPS), config)
    with stage("comparing that with PyTorch", console):
        check_parity(reference, file, precision)
    return file


@contextmanager
def stage(what: str, console: Console | None) -> Iterator[None]:
    """Something of a minute or so, which cannot say how far it is: its name, and the time that it has taken."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=console is None) as progress:
        progress.add_task(what, total=None)
        yield


def measure_impostors(file: OnnxModel, held_out: Sequence[Sample], console: Console | None) -> dict[str, str]:
    """The impostor-distance curve of a model file as metadata; nothing without held-out pictures."""
    if not held_out:
        return {}
    with Progress(console=console, transient=True, disable=console is None) as bar:
        task = bar.add_task("held-out identities", total=len(held_out))
        embeddings = embed_samples(file, held_out, advance=lambda n: bar.update(task, advance=n))
    identities = np.array([sample.identity for sample in held_out])
    return {"impostor_curve": json.dumps(impostor_curve(embeddings, identities))}


def crops_of(samples: Sequence[Sample], config: Config) -> Crops:
    """uint8 [len(samples), H, W, 3]."""
    return np.stack([read_crop(sample, config.height, config.width) for sample in samples])


def find_output(checkpoint: Path, output: Path | None, precision: Precision) -> Path:
    """The file to write; raises ValueError where that is something else already."""
    path = output or checkpoint.with_name(f"model-{precision}.onnx")
    if os.path.realpath(path) == os.path.realpath(checkpoint):  # Path.resolve raises on links in a circle
        raise ValueError(f"--output {path} is the checkpoint itself: give the model file another name")
    if path.is_dir():
        raise ValueError(f"--output {path} is a folder: name the file to write in it, {path / 'model.onnx'} say")
    return path


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 written, 1 the file failed its check or could not be written, 2 bad input, 130 interrupted."""
    options = parse(argv)
    output: Path | None = options.output
    try:
        checkpoint = read_checkpoint(options.checkpoint)
        output = find_output(checkpoint.path, output, options.precision)
        data = read(options.data, options.layout, ignore_cameras=options.ignore_cameras)
        exported = export(
            checkpoint,
            without_cameras(data, options.exclude_camera),
            output,
            options.precision,
            name=options.name,
            licence_notice=options.licence_notice,
            measure=not options.no_evaluation,
            console=terminal(),
        )
        with printing():
            print(exported.summary())
        for warning in exported.warnings:
            print(f"warning: {warning}", file=sys.stderr)
    except NotWritten as error:
        print(f"stopped: {error}", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ExportError as error:
        print(f"refused: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped: nothing was written", file=sys.stderr)
        return INTERRUPTED
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="checkpoint.pt, or the folder of its run")
    parser.add_argument("--data", type=Path, required=True, metavar="PATH", help="data set: a folder or a CSV file")
    parser.add_argument("--layout", choices=LAYOUTS, help="of the data set (default: found out by looking)")
    parser.add_argument("--ignore-cameras", action="store_true", help="take every camera as unknown")
    add_excluded_cameras(parser)
    parser.add_argument("--output", type=path, metavar="FILE", help="default: beside the checkpoint")
    parser.add_argument("--precision", choices=get_args(Precision), default="int8")
    parser.add_argument("--name", type=words, help="of the model (default: its training data and precision)")
    parser.add_argument(
        "--licence-notice",
        type=words,
        metavar="TEXT",
        help="default: that of the data it was trained on, where it is known",
    )
    parser.add_argument("--no-evaluation", action="store_true", help="do not measure the file on the test part")
    return parser.parse_args(argv)


if __name__ == "__main__":
    stop_on_sigterm()
    sys.exit(main())
