"""One run from its first epoch to its last: data, folder, continuing."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from training.config import Config, ConfigError
from training.data.dataset import Dataset
from training.data.holdout import hold_out
from training.loop import checkpoint, runlog
from training.loop.board import board
from training.loop.distillation import ONNX, Distiller, TeacherFile, read_teacher
from training.loop.distributed import Processes
from training.loop.engine import NotFinite, Step, train_epoch
from training.loop.feed import Feed
from training.loop.files import locked, make_folder
from training.loop.fit import check_fit, costly
from training.loop.learner import Learner
from training.loop.memory import enough_memory
from training.loop.precision import check_precision
from training.loop.probe import attention_figures
from training.loop.progress import epoch_progress
from training.loop.schedule import learning_rate_factor
from training.loop.state import State
from training.network.model import Embedder, ReIDNet
from training.network.resnet import set_last_stride
from training.network.stored import Checkpoint, read_checkpoint
from training.network.weights import check_frozen, load_backbone
from training.retrieval.calibration import doubt
from training.retrieval.metrics import RankMetrics
from training.retrieval.protocol import evaluate
from training.retrieval.torch_model import NetworkModel

log = logging.getLogger("training")
PROBED = 32  # training pictures on which the attention is looked at after every epoch
MEASURED_BATCH = 64
COLLAPSED = 0.01  # nats of attention_entropy, where attending to all alike has 2 to 5
MEASURED = "mAP"  # one of the figures that an epoch's line in the log has where it was measured

Record = dict[str, Any]


class LiveModel(NetworkModel):
    """A network that is not in a file yet; `path` is the folder of its run."""

    def __init__(self, embedder: Embedder, height: int, width: int, device: torch.device, path: Path) -> None:
        super().__init__(embedder, height, width, device)
        self.path = path


class Trainer:
    """One run: its data and its folder. With several processes every one has a trainer, and the first one writes.

    `config.calibration_identities` people of the training part are held out of it. `measured` is what `train` measured
    last on the test part (see `eval_every`), None where it did not.

    Raises:
        ConfigError: the device cannot train in this precision, or settings and data do not fit (see `check_fit`).
    """

    def __init__(
        self,
        config: Config,
        data: Dataset,
        run: Path,
        device: torch.device | str,
        console: Console | None = None,
        processes: Processes | None = None,
    ) -> None:
        self.config, self.data, self.run, self.console = config, data, run, console
        self.warned = False
        self.measured: RankMetrics | None = None
        self.device = torch.device(device)
        self.processes = processes or Processes()
        if warning := check_precision(config, self.device):
            log.warning(warning)
        if config.compile and self.processes.size > 1:
            log.warning("compile=true with several processes is untried: leave it out where the run fails")
        check_fit(config, data.train, self.processes.size)
        for doubted in (doubt(config.calibration_identities), costly(config, data.train)):
            if doubted:
                log.warning(doubted)
        kept = data.train
        if config.calibration_identities:
            kept, _ = hold_out(data.train, config.calibration_identities, config.seed)
        numbers = {identity: n for n, identity in enumerate(sorted({sample.identity for sample in kept}))}
        self.classes = len(numbers)
        # A teacher has a row for every picture of the training part: these are learnt from.
        self.rows = [row for row, sample in enumerate(data.train) if sample.identity in numbers]
        labels = [numbers[sample.identity] for sample in kept]
        self.feed = Feed(config, kept, labels, self.device, self.processes, folder=run, console=console)

    def train(self, weights: str, teacher: TeacherFile | None = None) -> Path:
        """Train or continue the run and return its checkpoint.

        Raises:
            ValueError: settings, weights or teacher that do not fit, or a folder that holds another run or in which
                another command is training.
            NotFinite: a loss or the gradient stopped being a number.
            NotWritten: the disk is full; the earlier checkpoint is as it was.
            OutOfMemory: of the device or the machine; the earlier checkpoint is as it was.
            KeyboardInterrupt: with a sentence about what is kept.
        """
        make_folder(self.run)
        with locked(self.run) if self.processes.first else nullcontext(), enough_memory():
            return self.train_alone(weights, teacher)

    def train_alone(self, weights: str, teacher: TeacherFile | None) -> Path:
        """`train`, with the folder to itself."""
        torch.backends.cudnn.benchmark = self.device.type == "cuda"  # few shapes, each many times
        state, provenance = self.build(weights, teacher)
        earlier, done = self.earlier(provenance), 0
        if earlier is not None:
            done = checkpoint.resume(earlier, state)
            log.info("continuing %s after epoch %d of %d", self.run, done, self.config.epochs)
        else:
            people = f"{self.classes} people to learn, {self.config.calibration_identities} held out"
            log.info("the run is in %s: %d pictures of %s", self.run, len(self.rows), people)
            log.info("backbone: %s", provenance["initialisation"])
        self.processes.agree({"complete epochs": done, "training pictures": provenance["data"]["sha256"]})
        starts = earlier.environments if earlier else []
        provenance["environments"] = [*starts, runlog.environment(self.device, self.processes.size)]
        try:
            self.train_from(done, state, provenance)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(self.what_is_kept()) from None
        return self.run / checkpoint.LATEST

    def build(self, weights: str, teacher: TeacherFile | None) -> tuple[State, Record]:
        """The run before its first step, and where it comes from."""
        torch.manual_seed(self.config.seed)
        network = ReIDNet(self.config, self.classes)
        loaded = load_backbone(network.backbone, weights)
        check_frozen(network.backbone, loaded, self.config.frozen_stages)
        distiller, origin = self.read_teacher(network, teacher)
        self.processes.join_batch_norms(network, self.device)
        learner = Learner(network, distiller, self.config, self.processes).to(self.device)
        provenance = {
            "config": self.config.to_dict(),
            "classes": self.classes,
            "initialisation": loaded.sentence,
            "teacher": origin,
            "teacher_layout": teacher.layout if teacher else None,
            "data": runlog.data_fingerprint(self.data),
        }
        return State(learner, loaded.names), provenance

    def read_teacher(self, network: ReIDNet, file: TeacherFile | None) -> tuple[Distiller | None, str]:
        """What learns from the teacher, whom the feed asks, and the teacher's origin."""
        if (file is None) != (self.config.distillation == 0):
            raise ConfigError("--teacher FILE and --set distillation=WEIGHT go together")
        if file is None:
            return None, "none"
        if self.config.recombined and file.path.suffix != ONNX:
            raise ConfigError("recombined pictures are on no list: a teacher of theirs is a model, MODEL.onnx")
        teacher = self.feed.teacher = read_teacher(file, self.rows, len(self.data.train), self.device)
        return Distiller(network.embedding_dim, teacher.dim), teacher.origin

    def earlier(self, provenance: Record) -> Checkpoint | None:
        """The folder's checkpoint, where there is one; refuses another run's."""
        path = self.run / checkpoint.LATEST
        if not path.is_file():
            return None
        found = read_checkpoint(path)
        checkpoint.check_same_run(found, provenance)
        return found

    def train_from(self, done: int, state: State, provenance: Record) -> None:
        """Everything after epoch `done`; the first process logs, measures and keeps every epoch."""
        epochs = range(done, self.config.epochs)
        if not self.processes.first:
            for epoch in epochs:
                self.train_epoch(epoch, state)
            return
        runlog.write_json(self.run / runlog.RUN, provenance)
        count = runlog.truncate(self.run, done)
        with board(self.run, done) as show:
            if self.due(done) and runlog.lacks(self.run, done, MEASURED):  # it was stopped in between
                self.set_size(done - 1, state)
                show({"epoch": done, **self.measure(state)})
            for epoch in epochs:
                record, steps = self.train_epoch(epoch, state)
                record |= attention_figures(state.learner.network, self.feed.spread(PROBED))
                runlog.append_steps(self.run, epoch + 1, count + 1, [step.losses for step in steps])
                runlog.append(self.run, record)
                count += len(steps)
                checkpoint.save(self.run, state, epoch + 1, provenance)
                if self.due(epoch + 1):
                    record |= self.measure(state)  # only now: where it fails, the epoch is kept
                show(record)
                self.warn_of_collapse(record)
                log.info(self.line(record))

    def line(self, record: Record) -> str:
        """An epoch's record as a line of the log."""
        figures = [f"{name} {value:.4g}" for name, value in record.items() if name != "epoch"]
        return f"epoch {record['epoch']} of {self.config.epochs}: {', '.join(figures)}"

    def warn_of_collapse(self, record: Record) -> None:
        """Once: an attention that looks at one position alone passes no gradient and does not come back by itself."""
        entropy = record.get("attention_entropy")
        if entropy is not None and entropy < COLLAPSED and not self.warned:
            self.warned = True
            scores = "score_factor (0.1), or with scale_scores=true"  # which self-attention alone has
            log.warning(
                "the attention has collapsed: attention_entropy is %.2g nats, each position attends to one alone; "
                "start a new run with a smaller %s",
                entropy,
                scores if self.config.attention == "self" else "learning_rate",
            )

    def train_epoch(self, epoch: int, state: State) -> tuple[Record, list[Step]]:
        """One epoch from its own seed: interrupted and begun again it is the same."""
        config = self.config
        torch.manual_seed(config.seed * 100_003 + epoch)
        drawn = self.feed.draw(epoch)  # before anything is decoded: it may be impossible
        self.set_size(epoch, state)
        factor = learning_rate_factor(config)
        factors = [factor(epoch + number / len(drawn)) for number in range(len(drawn))]
        pictures = config.identities * config.shots
        began = time.monotonic()
        with epoch_progress(self.console, epoch, config.epochs, len(drawn), pictures) as show:
            try:
                steps = train_epoch(state, factors, self.feed.batches(drawn), show)
            except NotFinite as error:
                raise NotFinite(f"epoch {epoch + 1}, {error}") from None
        seconds = time.monotonic() - began
        record = summary(epoch, steps, config) | {
            "learning_rate": config.learning_rate * factors[-1],
            "batches": len(steps),
            "seconds": round(seconds, 1),
            "images_per_second": round(len(steps) * pictures / seconds, 1),
        }
        return record, steps

    def set_size(self, epoch: int, state: State) -> None:
        """The pictures at the size of this epoch; the last stride goes with it."""
        config, half = self.config, epoch < self.config.half_size_epochs
        for network in (state.learner.network, state.kept):
            set_last_stride(network.backbone, 1 if half else config.last_stride)
        divisor = 2 if half else 1
        self.feed.decode(config.height // divisor, config.width // divisor)

    def due(self, done: int) -> bool:
        """Whether `eval_every` wants a measurement after so many epochs: also after the last one."""
        every = self.config.eval_every
        return every > 0 and done > 0 and (done % every == 0 or done == self.config.epochs)

    def measure(self, state: State) -> dict[str, float]:
        """Rank-k, mAP and mINP on the test part, added to the last epoch's line in the log; in the half-size epochs at
        half size, which is what the network knows."""
        height, width = self.feed.pictures.shape[-2:]
        model = LiveModel(Embedder(state.kept), height, width, self.device, self.run)
        self.measured = evaluate(model, self.data, batch=MEASURED_BATCH, console=self.console).metrics
        figures = self.measured.figures()
        runlog.amend(self.run, figures)
        return figures

    def what_is_kept(self) -> str:
        path = self.run / checkpoint.LATEST
        if not path.is_file():
            return "no epoch is complete, so that nothing is kept; the same command starts anew"
        done = read_checkpoint(path).state["epoch"]
        return f"{path} holds the {done} complete epochs; the same command continues after them"


def summary(epoch: int, steps: Sequence[Step], config: Config) -> Record:
    """The means of an epoch's losses over its batches, and of its accuracy where the classifier learns."""
    losses = {name: float(np.mean([step.losses[name] for step in steps])) for name in steps[0].losses}
    record = {"epoch": epoch + 1, **losses}
    if config.losses != "triplet":
        record["accuracy"] = float(np.mean([step.accuracy for step in steps]))
    return record
