"""Reading what a training run left: a checkpoint, and the network in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from training.config import Config
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
        ValueError: the file is no checkpoint of `training/train.py`.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(f"{path} is no checkpoint of training/train.py: {error}") from error
    missing = [key for key in NEEDED if key not in state] if isinstance(state, dict) else list(NEEDED)
    if missing:
        raise ValueError(f"{path} is no checkpoint of training/train.py: it has no {', '.join(missing)}")
    return Checkpoint(Path(path), state, Config.from_dict(state["config"]))


def load_checkpoint_model(checkpoint: Checkpoint) -> Embedder:
    """The embedder of a checkpoint, in evaluation mode on the CPU.

    Raises:
        ValueError: the run stopped before it saw pictures at full size.
    """
    config, epoch = checkpoint.config, checkpoint.state["epoch"]
    if epoch <= config.half_size_epochs:
        raise ValueError(
            f"{checkpoint.path} stopped after {epoch} epochs, the first {config.half_size_epochs} of which are at "
            "half size: the network does not know full-size pictures yet; train on"
        )
    network = ReIDNet(config, checkpoint.state["classes"])
    network.load_state_dict(checkpoint.state["model"])
    return Embedder(network).eval()
