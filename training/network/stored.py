"""Reading what a training run left: a checkpoint, and the network in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.config import Config, ConfigError
from training.network.model import Embedder, ReIDNet
from training.network.tensors import damaged_part, first_unusable

LATEST = "checkpoint.pt"
MOST_CLASSES = 10_000_000
REMEDY = "take a copy of it from a backup, or train anew in another --run folder"


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())


# What a checkpoint must have, and of what kind: a file may be forged, or of another program.
FORM: Mapping[str, Callable[[Any], bool]] = {
    "model": _is_state_dict,
    "epoch": lambda value: type(value) is int and value >= 0,
    "config": lambda value: isinstance(value, dict) and all(isinstance(key, str) for key in value),
    "classes": lambda value: type(value) is int and 0 < value <= MOST_CLASSES,
    "initialisation": lambda value: isinstance(value, str),
    "teacher": lambda value: isinstance(value, str),
    "data": lambda value: isinstance(value, dict) and isinstance(value.get("name"), str),
}


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
        return [dict(start) for start in starts if isinstance(start, dict)] if isinstance(starts, list) else []


def read_checkpoint(path: Path | str) -> Checkpoint:
    """Read a checkpoint.

    Args:
        path: a checkpoint, or the folder of the run that wrote it.

    Raises:
        ValueError: the file is no checkpoint of `training/train.py`, a damaged one, or one with settings that this
            version has not.
    """
    path = Path(path)
    if path.is_dir():
        path /= LATEST
    try:
        damaged = damaged_part(path)
        state: Any = None if damaged else torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist: give a run's folder or its {LATEST}") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    except MemoryError:
        raise
    except Exception as error:  # pickle, zip and torch each raise their own; torch's text advises to load it unsafely
        raise ValueError(f"{path} is no checkpoint of training/train.py, or a damaged one: {REMEDY}") from error
    if damaged:
        raise ValueError(f"{path} is damaged (the checksum of its part {damaged} is wrong): {REMEDY}")
    missing = [key for key in FORM if key not in state] if isinstance(state, dict) else list(FORM)
    if missing:
        raise ValueError(f"{path} is no checkpoint of training/train.py: it has no {', '.join(missing)}")
    if wrong := [key for key, sound in FORM.items() if not sound(state[key])]:
        raise ValueError(f"{path} is no checkpoint of training/train.py: {wrong[0]} is not what it writes there")
    if unusable := first_unusable(state["model"]):
        raise ValueError(f"{path}: {unusable}")
    try:
        config = Config.from_dict(state["config"])
    except ConfigError as error:
        raise ValueError(f"{path} was trained with other settings than this version has: {error}") from error
    return Checkpoint(path, state, config)


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
    with torch.device("meta"):  # settings that are forged may describe a network that no memory holds
        described = ReIDNet(config, checkpoint.state["classes"]).state_dict()
    if _shapes(checkpoint.state["model"]) != _shapes(described):
        raise ValueError(f"{checkpoint.path} has not the weights of the network that its settings describe")
    network = ReIDNet(config, checkpoint.state["classes"])
    network.load_state_dict(checkpoint.state["model"])
    return Embedder(network).eval()


def _shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items()}
