"""The network and what is needed only to train it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.config import Config
from training.loop.distillation import Distiller, relation_loss
from training.loop.distributed import Processes
from training.network.losses import batch_hard_triplet
from training.network.model import Features, ReIDNet

NO_CLASS = -1


@dataclass(frozen=True)
class Batch:
    """Normalised pictures float32 [N, 3, H, W], their classes int64 [N], the teacher's unit embeddings [N, T].

    A label below 0 is of a person who has no class and is on no other picture (`recombine`).
    """

    pictures: Tensor
    labels: Tensor
    target: Tensor | None = None


class Learner(nn.Module):
    """The losses of a batch: equation 10, the plain sum, of equation 9 (cross-entropy whose labels, not whose
    predictions, are smoothed: Szegedy et al., 2016) and equation 7 (batch-hard triplet), or one alone (Table 7).

    A distiller, where there is one, adds its own part, weighted. The first `frozen_stages` of the backbone keep
    their weights and, in training mode too, their batch-norm statistics.
    """

    def __init__(
        self, network: ReIDNet, distiller: Distiller | None, config: Config, processes: Processes | None = None
    ) -> None:
        super().__init__()
        # Faster on tensor cores, and what the gradients' layout must agree with.
        self.network: ReIDNet = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.distiller, self.config = distiller, config
        self.processes = processes or Processes()
        # A method, and no module: the compiled network has no parameters of its own.
        self.compiled: Callable[[Tensor], Features] | None = None
        if config.compile:
            # A run has one shape of batch, or two with half_size_epochs: each is worth a graph of its own.
            self.compiled = torch.compile(network.forward, dynamic=False)
        for module in self.frozen():
            module.requires_grad_(False)

    def frozen(self) -> list[nn.Module]:
        """The parts of stem, layer1 … layer4 that do not learn."""
        stages = self.network.backbone.stages()[: self.config.frozen_stages]
        return [module for _, modules in stages for module in modules]

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for module in self.frozen():
            module.eval()
        return self

    def forward(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """The parts of the loss, weighted, and the logits float32 [N, classes], which carry no gradient.

        With several processes `batch` is this one's part, and the mean of its losses over the processes is the
        whole batch's.
        """
        pictures = batch.pictures.contiguous(memory_format=torch.channels_last)
        features: Features = self.compiled(pictures) if self.compiled else self.network(pictures)
        config, losses = self.config, dict[str, Tensor]()
        if config.losses != "triplet":
            losses["cross_entropy"] = functional.cross_entropy(
                features.logits,
                batch.labels.clamp(min=NO_CLASS),
                ignore_index=NO_CLASS,
                label_smoothing=config.label_smoothing,
            )
        if config.losses != "cross_entropy":
            losses["triplet"] = self.triplet(features.pooled, batch.labels)
        if self.distiller is not None and batch.target is not None:
            losses["distillation"] = config.distillation * self.distiller(features.embedding, batch.target)
            if config.relations:
                losses["relations"] = config.relations * self.relations(features.embedding, batch.target)
        return losses, features.logits.detach()

    def triplet(self, features: Tensor, labels: Tensor) -> Tensor:
        """Equation 7 for this process's anchors, among the pictures of all processes."""
        return batch_hard_triplet(
            self.processes.gather(features),
            self.processes.gather(labels),
            margin=self.config.margin,
            soft=self.config.soft_margin,
            anchors=self.processes.own(len(labels)),
        )

    def relations(self, embedding: Tensor, target: Tensor) -> Tensor:
        """The relation loss for this process's anchors, among the pictures of all processes."""
        return relation_loss(
            self.processes.gather(embedding), self.processes.gather(target), self.processes.own(len(target))
        )
