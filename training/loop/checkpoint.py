"""A checkpoint is one dict: what training changes (`State`), the epoch, where it comes from. Whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from training.loop.files import write_whole
from training.loop.state import State
from training.network.stored import LATEST as LATEST
from training.network.stored import Checkpoint

FILE_NAME = re.compile(r"^.*?(?=\(sha256 [0-9a-f]{16}\b)", re.DOTALL)  # before the hash of its content
# Besides the settings, what makes a run this run.
IDENTITY = ("classes", "data", "initialisation", "teacher", "teacher_layout")


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

    The data set and files may have other names, and there may be other pictures to measure with. A setting that an
    earlier version did not have counts as its default, and what it did not tell is not compared.

    Raises:
        ValueError: naming the first difference and both values.
    """
    told = [key for key in IDENTITY if key in checkpoint.state]
    state = {"config": checkpoint.config.to_dict()} | {key: checkpoint.state[key] for key in told}
    was, now = _flat("", state), _flat("", {key: provenance[key] for key in ("config", *told)})
    for name, value in now.items():
        if _decides(name) and content_of(was.get(name)) != content_of(value):
            raise ValueError(
                f"{checkpoint.path} was trained with {name.removeprefix('config.')}={was.get(name)!r}, "
                f"not {value!r}: give the same, or another --run folder"
            )


def _decides(name: str) -> bool:
    """Whether what is trained depends on this entry of the provenance: of the data, on the training part alone."""
    return not name.startswith("data.") or name.startswith("data.train.") or name == "data.sha256"


def content_of(value: Any) -> Any:
    """What an origin says of a file, without its name: "a.pt (sha256 …): stem, layer1, …" from "(sha256" on."""
    return FILE_NAME.sub("", value) if isinstance(value, str) else value


def _flat(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values under dotted names."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(f"{prefix}{key}.", value) if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def resume(checkpoint: Checkpoint, state: State) -> int:
    """Take up a checkpoint of the same run (see `check_same_run`); the number of epochs that it has seen.

    Raises:
        ValueError: it was stripped of what training needs, or that is of another run.
    """
    if missing := [key for key in ("optimizer", "distiller") if key not in checkpoint.state]:
        raise ValueError(f"{checkpoint.path} cannot be continued: it has no {', '.join(missing)}")
    try:
        state.load_state_dict(checkpoint.state)
    # What torch raises on a state of another optimiser or network, or on none.
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{checkpoint.path} cannot be continued: its state is not of these settings in this version ({reason}); "
            "start a new --run"
        ) from error
    return int(checkpoint.state["epoch"])
