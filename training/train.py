"""Train a network: `python training/train.py --preset strong --data market1501 --weights resnet50.pt`.

A run lives in a folder outside the checkout. The same command continues a run that was stopped, from its
last complete epoch and, on a CPU, to the bit.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from training.config import PRESETS, Config, ConfigError, build_config
from training.data import market1501, synthetic
from training.data.cache import decode_all
from training.data.dataset import DataError, Dataset
from training.data.sampler import pk_batches
from training.data.transforms import Augment
from training.loop import checkpoint, runlog
from training.loop.distillation import Distiller, read_teacher
from training.loop.engine import Batch, Learner, NotFinite, Step, build_optimizer, train_epoch, warmup_cosine
from training.network.model import ReIDNet
from training.network.resnet import set_last_stride
from training.network.weights import load_backbone

log = logging.getLogger("training")
RUNS = Path.home() / "resight-runs"


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 trained, 1 stopped before the end (the same command continues), 2 bad input."""
    arguments = parse(argv)
    console = Console(stderr=True)
    handler = RichHandler(console=console, show_path=False, show_level=False, omit_repeated_times=False)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])
    try:
        config = build_config(arguments.preset, arguments.config, arguments.set)
        run = arguments.run or RUNS / f"{arguments.preset}-{config.sha256()[:8]}"
        data = arguments.data or draw_data(arguments.preset, run)
        trainer = Trainer(config, market1501.read(data), run, arguments.device, console)
        trained = trainer.train(arguments.weights, arguments.teacher)
        if not arguments.no_export:
            export_both(trained, data, run, console)
    except (ConfigError, DataError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except NotFinite as error:
        print(f"stopped: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"stopped: the same command continues the run in {run}", file=sys.stderr)
        return 1
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--preset", choices=list(PRESETS), default="strong")
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file with settings over the preset's")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one setting; repeatable")
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FOLDER",
        help="data set in Market-1501 layout, folders or zips (smoke draws one)",
    )
    parser.add_argument(
        "--weights", default="none", metavar="FILE", help="state dict for the backbone, 'imagenet' or 'none'"
    )
    parser.add_argument(
        "--teacher", type=Path, metavar="FILE", help=".npy, a row a training picture in name order, to distil from"
    )
    parser.add_argument("--run", type=Path, metavar="FOLDER", help=f"run folder (default: in {RUNS})")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--no-export", action="store_true", help="stop after the last checkpoint")
    return parser.parse_args(argv)


def draw_data(preset: str, run: Path) -> Path:
    """The drawn data set of the smoke preset, made in the run folder."""
    if preset != "smoke":
        raise ConfigError("--data is needed: the folder that holds bounding_box_train, query and bounding_box_test")
    folder = run / "drawn"
    if not (folder / "query").is_dir():
        synthetic.draw_market1501(folder)
    return folder


class Trainer:
    """One run: its data, its folder, its progress bar."""

    def __init__(self, config: Config, data: Dataset, run: Path, device: str, console: Console | None = None) -> None:
        self.config, self.data, self.run, self.console = config, data, run, console
        self.device = torch.device(device)
        classes = sorted({sample.identity for sample in data.train})
        self.classes = len(classes)
        self.labels = torch.tensor([classes.index(sample.identity) for sample in data.train])
        self.augment = Augment(config).to(self.device)
        self.pictures = torch.empty(0)  # decoded, uint8 [N, 3, H, W], at the size that the epoch wants
        self.targets: Tensor | None = None

    def train(self, weights: str, teacher: Path | None = None) -> Path:
        """Train or continue the run and return its checkpoint."""
        self.run.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(self.config.seed)
        network = ReIDNet(self.config, self.classes)
        loaded = load_backbone(network.backbone, weights)
        log.info("backbone: %s", loaded.sentence)
        distiller, origin = self.read_teacher(network, teacher)
        learner = Learner(network, distiller, self.config).to(self.device)
        learner.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = build_optimizer(learner, loaded.names)
        done = self.start(learner, optimizer)
        provenance = {
            "config": self.config.to_dict(),
            "classes": self.classes,
            "initialisation": loaded.sentence,
            "teacher": origin,
            "data": runlog.data_fingerprint(self.data),
            "environment": runlog.environment(),
        }
        runlog.write_run(self.run, provenance)
        for epoch in range(done, self.config.epochs):
            self.train_epoch(epoch, learner, optimizer)
            checkpoint.save(self.run, learner, optimizer, epoch + 1, provenance)
        return self.run / checkpoint.LATEST

    def read_teacher(self, network: ReIDNet, path: Path | None) -> tuple[Distiller | None, str]:
        if (path is None) != (self.config.distillation == 0):
            raise ConfigError("--teacher FILE and --set distillation=WEIGHT go together")
        if path is None:
            return None, "none"
        teacher = read_teacher(path, len(self.data.train))
        self.targets = teacher.embeddings
        return Distiller(network.backbone.channels, teacher.embeddings.shape[1]), teacher.origin

    def start(self, learner: Learner, optimizer: torch.optim.Optimizer) -> int:
        """Continue from the run's checkpoint where there is one; the number of epochs already done."""
        path = self.run / checkpoint.LATEST
        if not path.is_file():
            return 0
        done = checkpoint.resume(path, learner, optimizer)
        runlog.truncate(self.run, done)
        log.info("continuing %s after epoch %d of %d", self.run, done, self.config.epochs)
        return done

    def train_epoch(self, epoch: int, learner: Learner, optimizer: torch.optim.Optimizer) -> None:
        """One epoch from its own seed, logged: interrupted and begun again it is the same."""
        config = self.config
        torch.manual_seed(config.seed * 100_003 + epoch)
        self.set_size(epoch, learner.network)
        indices = self.draw_batches(epoch)
        factor = warmup_cosine(config.epochs, config.warmup_epochs)
        factors = [factor(epoch + number / len(indices)) for number in range(len(indices))]
        began = time.monotonic()
        with progress_bar(self.console) as bar:
            task = bar.add_task(f"epoch {epoch + 1}/{config.epochs}", total=len(indices), losses="")

            def show(step: Step) -> None:
                bar.update(task, advance=1, losses="  ".join(f"{k} {v:.3f}" for k, v in step.losses.items()))

            steps = train_epoch(learner, optimizer, factors, self.load(indices), show)
        record = summary(epoch, steps, learner.network, time.monotonic() - began, config)
        runlog.append(self.run, record)
        log.info(", ".join(f"{name} {value:.4g}" for name, value in record.items()))

    def set_size(self, epoch: int, network: ReIDNet) -> None:
        """Decode the pictures at the size of this epoch; the last stride goes with it."""
        half = epoch < self.config.half_size_epochs
        set_last_stride(network.backbone, 1 if half else self.config.last_stride, self.config.stride_placement)
        divisor = 2 if half else 1
        size = (self.config.height // divisor, self.config.width // divisor)
        if tuple(self.pictures.shape[-2:]) != size:
            log.info("decoding %d pictures at %d x %d", len(self.data.train), *size)
            self.pictures = decode_all(self.data.train, *size)

    def draw_batches(self, epoch: int) -> list[NDArray[np.int64]]:
        config = self.config
        short = config.epoch == "identities"
        return list(
            pk_batches(
                self.labels.tolist(),
                identities=config.identities,
                shots=config.shots,
                seed=config.seed,
                epoch=epoch,
                short=short,
            )
        )

    def load(self, indices: Sequence[NDArray[np.int64]]) -> Iterator[Batch]:
        """The augmented batches, on the device."""
        for batch in indices:
            chosen = torch.from_numpy(batch)
            target = None if self.targets is None else self.targets[chosen].to(self.device)
            pictures = self.augment(self.pictures[chosen].to(self.device))
            yield Batch(pictures, self.labels[chosen].to(self.device), target)


def summary(epoch: int, steps: Sequence[Step], network: ReIDNet, seconds: float, config: Config) -> dict[str, Any]:
    """The epoch's line of log.jsonl: means over its batches."""
    losses = {name: float(np.mean([step.losses[name] for step in steps])) for name in steps[0].losses}
    return {
        "epoch": epoch + 1,
        **losses,
        "accuracy": float(np.mean([step.accuracy for step in steps])),
        "alpha": network.attention.alpha.item(),
        "batches": len(steps),
        "seconds": round(seconds, 1),
        "images_per_second": round(len(steps) * config.identities * config.shots / seconds, 1),
    }


def progress_bar(console: Console | None) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[losses]}"),
    )
    return Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=console is None)


def export_both(trained: Path, data: Path, run: Path, console: Console) -> None:
    """The run's model files, fp32 and int8, each evaluated as the file that it is."""
    from training.export import PARITY, export  # here: a machine that only trains needs no ONNX

    for precision in PARITY:
        exported = export(trained, data, run / f"model-{precision}.onnx", precision, console=console)
        log.info(exported.summary())


if __name__ == "__main__":
    sys.exit(main())
