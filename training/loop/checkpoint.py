"""A checkpoint is one dict: model, optimizer, epoch, classes, config, provenance. Written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from training.loop.engine import Learner
from training.network.model import read_checkpoint

LATEST = "checkpoint.pt"


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


def resume(path: Path, learner: Learner, optimizer: torch.optim.Optimizer) -> int:
    """Load a checkpoint and return the number of epochs that it has seen.

    Raises:
        ValueError: the file is no checkpoint, or one of another configuration.
    """
    checkpoint = read_checkpoint(path)
    was, now = checkpoint["config"], learner.config.to_dict()
    if changed := [key for key in now if was.get(key) != now[key]]:
        raise ValueError(
            f"{path} was trained with {changed[0]}={was.get(changed[0])!r}, not {now[changed[0]]!r}: "
            "give the same settings, or another --run folder"
        )
    if (checkpoint["distiller"] is None) != (learner.distiller is None):
        raise ValueError(f"{path} was trained {'without' if learner.distiller else 'with'} --teacher: do the same")
    learner.network.load_state_dict(checkpoint["model"])
    if learner.distiller is not None:
        learner.distiller.load_state_dict(checkpoint["distiller"])
    optimizer.load_state_dict(checkpoint["optimizer"])
    return int(checkpoint["epoch"])
