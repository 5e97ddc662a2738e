"""A checkpoint is one dict: model, distiller, optimizer, epoch, provenance. Written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from training.loop.engine import Learner
from training.network.stored import Checkpoint

LATEST = "checkpoint.pt"
IDENTITY = ("classes", "data", "initialisation", "teacher")  # besides the settings, what makes a run this run


def save(
    folder: Path, learner: Learner, optimizer: torch.optim.Optimizer, epoch: int, provenance: dict[str, Any]
) -> Path:
    """Write `folder`/checkpoint.pt after `epoch` complete epochs; the earlier one stays until this is on disk."""
    path, partial = folder / LATEST, folder / f"{LATEST}.partial"
    state = {
        "model": learner.network.state_dict(),
        "distiller": learner.distiller and learner.distiller.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": epoch,
        **provenance,
    }
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    return path


def check_same_run(checkpoint: Checkpoint, provenance: Mapping[str, Any]) -> None:
    """Refuse to continue another run: other settings, data (whatever it is called), weights or teacher.

    Raises:
        ValueError: naming the first difference and both values.
    """
    state = {"config": checkpoint.config.to_dict()} | {key: checkpoint.state[key] for key in IDENTITY}
    was, now = _flat("", state), _flat("", {key: provenance[key] for key in ("config", *IDENTITY)})
    for name, value in now.items():
        if name != "data.name" and was.get(name) != value:
            raise ValueError(
                f"{checkpoint.path} was trained with {name.removeprefix('config.')}={was.get(name)!r}, "
                f"not {value!r}: give the same, or another --run folder"
            )


def _flat(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values under dotted names."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(f"{prefix}{key}.", value) if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def resume(checkpoint: Checkpoint, learner: Learner, optimizer: torch.optim.Optimizer) -> int:
    """Take up a checkpoint of the same run (see `check_same_run`); the number of epochs that it has seen.

    Raises:
        ValueError: it holds no state of an optimizer.
    """
    state = checkpoint.state
    if missing := [key for key in ("optimizer", "distiller") if key not in state]:
        raise ValueError(f"{checkpoint.path} cannot be continued: it has no {', '.join(missing)}")
    learner.network.load_state_dict(state["model"])
    if learner.distiller is not None:
        learner.distiller.load_state_dict(state["distiller"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["epoch"])
