"""One epoch of training: batches in, a summary of its losses out."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.config import Config
from training.loop.distillation import Distiller
from training.network.losses import batch_hard_triplet
from training.network.model import ReIDNet


class NotFinite(RuntimeError):
    """A loss or the gradient became NaN or infinite; the message names the batch."""


@dataclass(frozen=True)
class Batch:
    """Normalised pictures float32 [N, 3, H, W], their classes int64 [N], the teacher's unit embeddings [N, T]."""

    pictures: Tensor
    labels: Tensor
    target: Tensor | None = None


@dataclass(frozen=True)
class Step:
    """One optimiser step: every part of the loss, and the share of its pictures classified rightly."""

    losses: dict[str, float]
    accuracy: float


class Learner(nn.Module):
    """The network and what is needed only to train it: equation 10, the plain sum of the losses.

    A distiller, where there is one, adds its own part, weighted.
    """

    def __init__(self, network: ReIDNet, distiller: Distiller | None, config: Config) -> None:
        super().__init__()
        self.network, self.distiller, self.config = network, distiller, config

    def forward(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """The parts of the loss, weighted, and the logits float32 [N, classes]."""
        features = self.network(batch.pictures.contiguous(memory_format=torch.channels_last))
        logits = features.logits
        smoothing = self.config.label_smoothing
        losses = {
            "cross_entropy": functional.cross_entropy(logits, batch.labels, label_smoothing=smoothing),
            "triplet": batch_hard_triplet(features.pooled, batch.labels, self.config.margin),
        }
        if self.distiller is not None and batch.target is not None:
            losses["distillation"] = self.config.distillation * self.distiller(features.embedding, batch.target)
        return losses, logits


def train_step(learner: Learner, optimizer: torch.optim.Optimizer, batch: Batch) -> Step:
    """One step down the gradient of the summed losses.

    Raises:
        NotFinite: a loss or the gradient's norm is not finite; the weights are as before.
    """
    bf16 = learner.config.precision == "bf16"
    with torch.autocast(batch.pictures.device.type, dtype=torch.bfloat16, enabled=bf16):
        losses, logits = learner(batch)
    optimizer.zero_grad(set_to_none=True)
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    gradients = [parameter.grad for parameter in learner.parameters() if parameter.grad is not None]
    with torch.no_grad():
        accuracy = (logits.argmax(dim=1) == batch.labels).float().mean()
        norm = torch.nn.utils.get_total_norm(gradients)
        # All figures at once: each reading makes the host wait for the device.
        *parts, accurate, gradient = torch.stack([*losses.values(), accuracy, norm]).tolist()
    named = dict(zip(losses, parts, strict=True))
    if not all(map(math.isfinite, (*parts, gradient))):
        raise NotFinite(", ".join(f"{name} {value}" for name, value in {**named, "gradient": gradient}.items()))
    optimizer.step()
    return Step(named, accurate)


def train_epoch(
    learner: Learner,
    optimizer: torch.optim.Optimizer,
    factors: Sequence[float],
    batches: Iterable[Batch],
    on_step: Callable[[Step], None],
) -> list[Step]:
    """Train on `batches`.

    Args:
        factors: for every batch, what multiplies each group's base learning rate.

    Raises:
        NotFinite: naming the batch whose loss or gradient was NaN or infinite, before any weight took it up.
    """
    learner.train()
    freeze(learner.network, learner.config.frozen_stages)
    steps = []
    for number, (factor, batch) in enumerate(zip(factors, batches, strict=True)):
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        try:
            steps.append(train_step(learner, optimizer, batch))
        except NotFinite as error:
            raise NotFinite(
                f"batch {number} of the epoch: {error}; start a new --run with a lower learning_rate or precision=fp32"
            ) from None
        on_step(steps[-1])
    return steps


def freeze(network: ReIDNet, stages: int) -> None:
    """Fix weights and batch-norm statistics of the first `stages` of stem, layer1 … layer4."""
    for _, modules in network.backbone.stages()[:stages]:
        for module in modules:
            module.eval().requires_grad_(False)


def build_optimizer(learner: Learner, pretrained: Collection[str]) -> torch.optim.AdamW:
    """AdamW over two groups: the backbone's `pretrained` parameters, and what starts fresh.

    Args:
        pretrained: names within the backbone.
    """
    config = learner.config
    freeze(learner.network, config.frozen_stages)
    groups: dict[bool, list[Tensor]] = {True: [], False: []}
    for name, parameter in learner.named_parameters():
        if parameter.requires_grad:
            groups[name.removeprefix("network.backbone.") in pretrained].append(parameter)
    # From scratch everything is fresh: then there is nothing to be faster than.
    fresh_rate = config.learning_rate * (config.fresh_factor if pretrained else 1.0)
    rates = {True: config.learning_rate, False: fresh_rate}
    return torch.optim.AdamW(
        [
            {"params": parameters, "lr": rates[known], "base_lr": rates[known]}
            for known, parameters in groups.items()
            if parameters
        ],
        weight_decay=config.weight_decay,
        fused=True,
    )


def warmup_cosine(epochs: int, warmup: float) -> Callable[[float], float]:
    """Factor on the learning rate after `epoch` (fractional): linear over `warmup`, then half a cosine to zero."""

    def factor(epoch: float) -> float:
        if epoch < warmup:
            return 0.01 + 0.99 * epoch / warmup
        return 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / max(1e-9, epochs - warmup)))

    return factor
