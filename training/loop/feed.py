"""The training pictures, decoded once, as augmented batches on the training device."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from training.config import Config
from training.data.cache import SHARE, decode_all
from training.data.dataset import Sample
from training.data.memory import available_bytes
from training.data.sampler import pk_batches
from training.data.transforms import Augment, recombine
from training.loop.distillation import Teacher
from training.loop.distributed import Processes
from training.loop.learner import Batch

log = logging.getLogger("training")
GPU_SHARE = 0.5  # of a card's free memory that the pictures may take


class Feed:
    """Batches of the training part. Labels and targets lie on `device`, and so do the pictures where they fit.

    Args:
        samples: the pictures to learn from, and `classes` [N] their classes, from 0.
        folder: for decoded pictures that do not fit into memory.
        console: for a progress bar; None shows none.

    Raises:
        ConfigError: the processes cannot share out a batch.
    """

    def __init__(
        self,
        config: Config,
        samples: Sequence[Sample],
        classes: Sequence[int],
        device: torch.device,
        processes: Processes | None = None,
        *,
        folder: Path | None = None,
        console: Console | None = None,
    ) -> None:
        self.config, self.samples, self.classes, self.device = config, samples, classes, device
        self.processes, self.folder, self.console = processes or Processes(), folder, console
        self.part = self.processes.part(config.identities, config.shots)
        self.labels = torch.tensor(classes, device=device)
        self.teacher: Teacher | None = None
        self.augment = Augment(config, device)
        self.pictures = torch.empty(0)  # uint8 [N, 3, H, W], at the size that the epoch wants

    def decode(self, height: int, width: int) -> None:
        """Have the pictures at this size.

        Raises:
            DataError: a picture cannot be read; the message names it.
        """
        if tuple(self.pictures.shape[-2:]) == (height, width):
            return
        log.info("decoding %d pictures at %d x %d", len(self.samples), height, width)
        self.pictures = torch.empty(0)  # never both sizes in memory
        # As if every process were on this machine: they share its cores and its memory.
        threads = max(1, (os.cpu_count() or 1) // self.processes.size)
        limit = int(SHARE * available_bytes()) // self.processes.size
        self.pictures = self.place(decode_all(self.samples, height, width, threads, self.folder, limit, self.console))

    def place(self, pictures: Tensor) -> Tensor:
        """The pictures on the device, unless they would take most of a card."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()  # what torch keeps for itself is free for this
            free, _ = torch.cuda.mem_get_info(self.device)
            if pictures.nbytes > GPU_SHARE * free:
                size = pictures.nbytes / 1e9
                log.info("the pictures stay in the host's memory: %.1f GB are too many for the card", size)
                return pictures
        return pictures.to(self.device)

    def spread(self, count: int) -> Tensor:
        """`count` pictures (or all), the same every time, evenly from first to last; uint8 on the device."""
        chosen = torch.linspace(0, len(self.pictures) - 1, min(count, len(self.pictures))).long()
        return self.pictures[chosen.to(self.pictures.device)].to(self.device)

    def draw(self, epoch: int) -> list[NDArray[np.int64]]:
        """The batches of an epoch as indices [identities * shots] into the pictures, those of all processes."""
        config = self.config
        cameras = [sample.camera for sample in self.samples] if config.group == "camera" else None
        return list(
            pk_batches(
                self.classes,
                cameras,
                identities=config.identities,
                shots=config.shots,
                seed=config.seed,
                epoch=epoch,
                short=config.epoch == "identities",
            )
        )

    def batches(self, drawn: Sequence[NDArray[np.int64]]) -> Iterator[Batch]:
        """This process's part of every batch. The whole batch is augmented, so that a seed draws the same
        for a picture however many processes there are."""
        chosen = torch.from_numpy(np.stack(drawn))
        # At once, not a batch at a time: every copy makes the host wait for the device.
        rows, own_rows = chosen.to(self.pictures.device), chosen[:, self.part].to(self.device)
        for indices, own in zip(rows, own_rows, strict=True):
            varied = self.augment.vary(self.pictures[indices].to(self.device))
            labels = self.labels[own]
            if self.config.recombined:
                varied, changed = recombine(varied, self.config.shots, self.config.recombined)
                nobody = -1 - torch.arange(len(indices), device=self.device)  # each the only picture of its person
                labels = torch.where(changed[self.part].to(self.device), nobody[self.part], labels)
            target = None if self.teacher is None else self.teacher(own, varied[self.part])
            yield Batch(self.augment.prepare(varied)[self.part], labels, target)
