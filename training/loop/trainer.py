"""One run from its first epoch to its last: data, folder, progress, continuing."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from training.config import Config, ConfigError
from training.data.cache import decode_all
from training.data.dataset import Dataset
from training.data.sampler import pk_batches
from training.data.transforms import Augment
from training.loop import checkpoint, runlog
from training.loop.distillation import Distiller, read_teacher
from training.loop.engine import Batch, Learner, Step, build_optimizer, train_epoch, warmup_cosine
from training.loop.probe import probed
from training.network.model import ReIDNet
from training.network.resnet import set_last_stride
from training.network.stored import Checkpoint, read_checkpoint
from training.network.weights import check_frozen, load_backbone

log = logging.getLogger("training")


class Trainer:
    """One run: its data, its folder, its progress bar. Pictures, labels and targets lie on the training device."""

    def __init__(
        self, config: Config, data: Dataset, run: Path, device: torch.device | str, console: Console | None = None
    ) -> None:
        self.config, self.data, self.run, self.console = config, data, run, console
        self.device = torch.device(device)
        numbers = {identity: n for n, identity in enumerate(sorted({sample.identity for sample in data.train}))}
        self.classes = len(numbers)
        self.labels = [numbers[sample.identity] for sample in data.train]
        self.label_tensor = torch.tensor(self.labels, device=self.device)
        self.augment = Augment(config, self.device)
        self.pictures = torch.empty(0)  # decoded, uint8 [N, 3, H, W], at the size that the epoch wants
        self.targets: Tensor | None = None

    def train(self, weights: str, teacher: Path | None = None) -> Path:
        """Train or continue the run and return its checkpoint.

        Raises:
            ValueError: settings, weights or teacher that do not fit, or a folder that holds another run.
            NotFinite: a loss or the gradient stopped being a number.
        """
        self.run.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(self.config.seed)
        torch.backends.cudnn.benchmark = self.device.type == "cuda"  # few shapes, each many times
        network = ReIDNet(self.config, self.classes)
        loaded = load_backbone(network.backbone, weights)
        check_frozen(network.backbone, loaded, self.config.frozen_stages)
        log.info("backbone: %s", loaded.sentence)
        distiller, origin = self.read_teacher(network, teacher)
        learner = Learner(network, distiller, self.config).to(self.device)
        learner.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = build_optimizer(learner, loaded.names)
        provenance = {
            "config": self.config.to_dict(),
            "classes": self.classes,
            "initialisation": loaded.sentence,
            "teacher": origin,
            "data": runlog.data_fingerprint(self.data),
        }
        earlier = self.earlier(provenance)
        done = self.start(earlier, learner, optimizer)
        starts = earlier.environments if earlier else []
        provenance["environments"] = [*starts, runlog.environment(self.device)]
        runlog.write_json(self.run / runlog.RUN, provenance)
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
        self.targets = teacher.embeddings.to(self.device)
        return Distiller(network.backbone.channels, teacher.embeddings.shape[1]), teacher.origin

    def earlier(self, provenance: dict[str, Any]) -> Checkpoint | None:
        """The folder's checkpoint, where there is one; refuses another run's."""
        path = self.run / checkpoint.LATEST
        if not path.is_file():
            return None
        found = read_checkpoint(path)
        checkpoint.check_same_run(found, provenance)
        return found

    def start(self, earlier: Checkpoint | None, learner: Learner, optimizer: torch.optim.Optimizer) -> int:
        """Continue from the run's checkpoint where there is one; the number of epochs already done."""
        done = 0
        if earlier is not None:
            done = checkpoint.resume(earlier, learner, optimizer)
            log.info("continuing %s after epoch %d of %d", self.run, done, self.config.epochs)
        runlog.truncate(self.run, done)
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
        with progress_bar(self.console) as bar, probed(learner.network.attention) as probe:
            task = bar.add_task(f"epoch {epoch + 1}/{config.epochs}", total=len(indices), losses="")

            def show(step: Step) -> None:
                bar.update(task, advance=1, losses="  ".join(f"{k} {v:.3f}" for k, v in step.losses.items()))

            steps = train_epoch(learner, optimizer, factors, self.load(indices), show)
            record = summary(epoch, steps, probe.figures(), time.monotonic() - began, config)
        runlog.append(self.run, record)
        log.info(", ".join(f"{name} {value:.4g}" for name, value in record.items()))

    def set_size(self, epoch: int, network: ReIDNet) -> None:
        """Decode the pictures at the size of this epoch; the last stride goes with it."""
        half = epoch < self.config.half_size_epochs
        set_last_stride(network.backbone, 1 if half else self.config.last_stride)
        divisor = 2 if half else 1
        size = (self.config.height // divisor, self.config.width // divisor)
        if tuple(self.pictures.shape[-2:]) != size:
            log.info("decoding %d pictures at %d x %d", len(self.data.train), *size)
            self.pictures = torch.empty(0)  # never both sizes in memory
            self.pictures = decode_all(self.data.train, *size).to(self.device)

    def draw_batches(self, epoch: int) -> list[NDArray[np.int64]]:
        config = self.config
        short = config.epoch == "identities"
        return list(
            pk_batches(
                self.labels,
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
            chosen = torch.from_numpy(batch).to(self.device)
            target = None if self.targets is None else self.targets[chosen]
            yield Batch(self.augment(self.pictures[chosen]), self.label_tensor[chosen], target)


def summary(
    epoch: int, steps: Sequence[Step], attention: dict[str, float], seconds: float, config: Config
) -> dict[str, Any]:
    """The epoch's line of log.jsonl: means over its batches; the attention's figures are of the last one."""
    losses = {name: float(np.mean([step.losses[name] for step in steps])) for name in steps[0].losses}
    return {
        "epoch": epoch + 1,
        **losses,
        "accuracy": float(np.mean([step.accuracy for step in steps])),
        **attention,
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
