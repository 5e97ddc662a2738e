"""One epoch of training: batches in, its steps out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from training.loop.learner import Batch
from training.loop.state import State

REMEDY = "start a new --run with a lower learning_rate or precision=fp32"
MIXED = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class NotFinite(RuntimeError):
    """A loss, the gradient or a weight became NaN or infinite; the message names the batch or the weight."""


@dataclass(frozen=True)
class Step:
    """One optimiser step: every part of the loss, and the share of its pictures classified rightly."""

    losses: dict[str, float]
    accuracy: float


def train_step(state: State, batch: Batch) -> Step:
    """One step down the gradient of the summed losses; the figures are those of the batch of all processes.

    Raises:
        NotFinite: a loss or the gradient's norm is not finite; the weights are as before.
    """
    learner, scaler, optimizer = state.learner, state.scaler, state.optimizer
    precision = learner.config.precision
    with torch.autocast(batch.pictures.device.type, MIXED[precision], enabled=precision != "fp32"):
        losses, logits = state.module(batch)
    optimizer.zero_grad(set_to_none=True)
    scaler.scale(torch.stack(list(losses.values())).sum()).backward()  # type: ignore[no-untyped-call]
    scaler.unscale_(optimizer)
    gradients = [parameter.grad for parameter in learner.parameters() if parameter.grad is not None]
    with torch.no_grad():
        accuracy = (logits.argmax(dim=1) == batch.labels).sum() / (batch.labels >= 0).sum()
        norm = torch.nn.utils.get_total_norm(gradients)
        # All figures at once: each reading makes the host wait for the device.
        figures = learner.processes.mean(torch.stack([*losses.values(), accuracy, norm]))
        *parts, accurate, gradient = figures.tolist()
    named = dict(zip(losses, parts, strict=True))
    if not all(map(math.isfinite, parts)) or not (math.isfinite(gradient) or may_overflow(scaler)):
        raise NotFinite(", ".join(f"{name} {value}" for name, value in {**named, "gradient": gradient}.items()))
    scaler.step(optimizer)
    scaler.update()
    if state.mean is not None:
        state.mean.update(learner.network)
    return Step(named, accurate)


def may_overflow(scaler: torch.amp.GradScaler) -> bool:
    """Whether a gradient that is not finite may be the scale's doing: then the step is left out, the scale halved."""
    return scaler.is_enabled() and scaler.get_scale() > 1


def train_epoch(
    state: State, factors: Sequence[float], batches: Iterable[Batch], on_step: Callable[[Step], None]
) -> list[Step]:
    """Train on `batches`.

    Args:
        factors: for every batch, what multiplies each group's base learning rate.

    Raises:
        NotFinite: naming the batch whose loss or gradient was NaN or infinite, before any weight took it up; or a
            weight that is so after the last batch.
    """
    state.module.train()
    steps = []
    for number, (factor, batch) in enumerate(zip(factors, batches, strict=True)):
        for group in state.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        try:
            steps.append(train_step(state, batch))
        except NotFinite as error:
            raise NotFinite(f"batch {number}: {error}; {REMEDY}") from None
        on_step(steps[-1])
    if broken := overflowed(state):
        raise NotFinite(f"{broken} is not finite after the last batch; {REMEDY}")
    return steps


def overflowed(state: State) -> str:
    """The first weight or statistic that is not finite, by its name; empty where all are. A step may do that whose loss
    and gradient were finite, and a batch norm's variance overflows before either."""
    for network in (state.learner.network, state.kept):
        for name, tensor in network.state_dict().items():
            if not bool(torch.isfinite(tensor).all()):
                return name
    return ""
