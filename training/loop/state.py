"""Everything that a step of training changes."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch

from training.loop.ema import RunningMean
from training.loop.learner import Learner
from training.loop.optimizer import build_optimizer
from training.network.model import ReIDNet


class State:
    """The learner, its optimiser, the gradient scale of fp16, and the running mean of the weights (`ema`).

    `module` is the learner as a step calls it: with its gradients averaged where there are several processes.
    """

    def __init__(self, learner: Learner, pretrained: Collection[str]) -> None:
        """Args: pretrained: names within the backbone."""
        config = learner.config
        device = next(learner.parameters()).device
        self.learner = learner
        self.optimizer = build_optimizer(learner, pretrained)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        self.mean = RunningMean(learner.network, config.ema) if config.ema else None
        # With the triplet loss alone the classifier gets no gradient.
        self.module = learner.processes.wrap(learner, unused=config.losses == "triplet")

    @property
    def kept(self) -> ReIDNet:
        """The network that is measured, exported and loaded: the running mean where there is one."""
        return self.learner.network if self.mean is None else self.mean.network

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds of it; `model` is `kept`, and `raw` what is trained where that is another."""
        distiller = self.learner.distiller
        return {
            "model": self.kept.state_dict(),
            "raw": self.learner.network.state_dict() if self.mean else None,
            "distiller": distiller and distiller.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`, for the same settings."""
        self.kept.load_state_dict(state["model"])
        if self.mean is not None:
            self.learner.network.load_state_dict(state["raw"])
        if self.learner.distiller is not None:
            self.learner.distiller.load_state_dict(state["distiller"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
