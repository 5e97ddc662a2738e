"""A checkpoint is one dict: what training changes (`State`), the epoch, where it comes from. Whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from training.loop.files import write_whole
from training.loop.state import State
from training.network.stored import Checkpoint

LATEST = "checkpoint.pt"
IDENTITY = ("classes", "data", "initialisation", "teacher")  # besides the settings, what makes a run this run


def save(folder: Path, state: State, epoch: int, provenance: dict[str, Any]) -> Path:
    """Write `folder`/checkpoint.pt after `epoch` complete epochs; the earlier one stays until this is on disk.

    Raises:
        NotWritten: the disk is full, or the folder cannot be written; the earlier checkpoint is as it was.
    """
    path = folder / LATEST
    content = {**state.state_dict(), "epoch": epoch, **provenance}
    write_whole(path, lambda file: torch.save(content, file))
    return path


def check_same_run(checkpoint: Checkpoint, provenance: Mapping[str, Any]) -> None:
    """Refuse to continue another run: other settings, training pictures, weights or teacher.

    The data set may have another name, and other pictures to measure with.

    Raises:
        ValueError: naming the first difference and both values.
    """
    state = {"config": checkpoint.config.to_dict()} | {key: checkpoint.state[key] for key in IDENTITY}
    was, now = _flat("", state), _flat("", {key: provenance[key] for key in ("config", *IDENTITY)})
    for name, value in now.items():
        if _decides(name) and was.get(name) != value:
            raise ValueError(
                f"{checkpoint.path} was trained with {name.removeprefix('config.')}={was.get(name)!r}, "
                f"not {value!r}: give the same, or another --run folder"
            )


def _decides(name: str) -> bool:
    """Whether what is trained depends on this entry of the provenance: of the data, on the training part alone."""
    return not name.startswith("data.") or name.startswith("data.train.") or name == "data.sha256"


def _flat(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values under dotted names."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(f"{prefix}{key}.", value) if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def resume(checkpoint: Checkpoint, state: State) -> int:
    """Take up a checkpoint of the same run (see `check_same_run`); the number of epochs that it has seen.

    Raises:
        ValueError: it was stripped of what training needs.
    """
    if missing := [key for key in ("optimizer", "distiller") if key not in checkpoint.state]:
        raise ValueError(f"{checkpoint.path} cannot be continued: it has no {', '.join(missing)}")
    state.load_state_dict(checkpoint.state)
    return int(checkpoint.state["epoch"])
