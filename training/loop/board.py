"""The run's log for TensorBoard, where that is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from training.loop.files import NotWritten

FOLDER = "tensorboard"
UNSHOWN = ("epoch", "batches", "seconds")

T = TypeVar("T")


@contextmanager
def board(run: Path, epochs_done: int) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Event files in `run`/tensorboard, over the epochs; what was written of epochs after `epochs_done` is dropped.

    Yields:
        what takes an epoch's line of log.jsonl.

    Raises:
        NotWritten: the disk is full, or the folder cannot be written.
    """
    if find_spec("tensorboard") is None:
        yield lambda _record: None
        return
    from torch.utils.tensorboard import SummaryWriter  # takes seconds, and only training needs it

    writer = _told(run, lambda: SummaryWriter(str(run / FOLDER), purge_step=epochs_done + 1))

    def write(record: Mapping[str, Any]) -> None:
        for name, value in record.items():
            if name not in UNSHOWN:
                writer.add_scalar(name, value, record["epoch"])
        writer.flush()

    try:
        yield lambda record: _told(run, lambda: write(record))
    finally:
        _told(run, writer.close)


def _told(run: Path, act: Callable[[], T]) -> T:
    """What `act` gives; a failed write names the folder."""
    try:
        return act()
    except OSError as error:
        raise NotWritten(f"{run / FOLDER} could not be written ({error})") from error
