"""Reading what a training run left: a checkpoint, and the network in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from training.config import Config, ConfigError
from training.network.model import Embedder, ReIDNet

NEEDED = ("model", "epoch", "config", "classes", "initialisation", "teacher", "data")


@dataclass(frozen=True)
class Checkpoint:
    """The dict that `training.loop.checkpoint` wrote, tensors on the CPU, and where it was read."""

    path: Path
    state: dict[str, Any]
    config: Config

    @property
    def data_name(self) -> str:
        """The data set that it was trained on."""
        return str(self.state["data"]["name"])

    @property
    def environments(self) -> list[dict[str, Any]]:
        """Where it was trained, one entry for each start of the run; an early checkpoint tells the last one only."""
        starts = self.state.get("environments") or [self.state.get("environment", {})]
        return [dict(start) for start in starts]


def read_checkpoint(path: Path | str) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        ValueError: the file is no checkpoint of `training/train.py`, or one with settings that this version has not.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    except Exception as error:  # pickle, zip and torch each raise their own; torch's text advises to load it unsafely
        raise ValueError(f"{path} is no checkpoint of training/train.py, or a damaged one") from error
    missing = [key for key in NEEDED if key not in state] if isinstance(state, dict) else list(NEEDED)
    if missing:
        raise ValueError(f"{path} is no checkpoint of training/train.py: it has no {', '.join(missing)}")
    try:
        config = Config.from_dict(state["config"])
    except ConfigError as error:
        raise ValueError(f"{path} was trained with other settings than this version has: {error}") from error
    return Checkpoint(Path(path), state, config)


def load_checkpoint_model(checkpoint: Checkpoint) -> Embedder:
    """The embedder of a checkpoint, in evaluation mode on the CPU.

    Raises:
        ValueError: the run stopped before it saw pictures at full size, or its weights are of another network than
            its settings describe.
    """
    config, epoch = checkpoint.config, checkpoint.state["epoch"]
    if epoch <= config.half_size_epochs:
        raise ValueError(
            f"{checkpoint.path} stopped after {epoch} epochs, the first {config.half_size_epochs} of which are at "
            "half size: the network does not know full-size pictures yet; train on"
        )
    network = ReIDNet(config, checkpoint.state["classes"])
    try:
        network.load_state_dict(checkpoint.state["model"])
    except RuntimeError as error:
        raise ValueError(f"{checkpoint.path} has not the weights of the network that its settings describe") from error
    return Embedder(network).eval()
