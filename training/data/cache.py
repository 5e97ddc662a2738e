"""All training pictures decoded once, as one uint8 tensor: in memory, or past that in a file."""

from __future__ import annotations

import errno
import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from training.data.dataset import DataError, Sample
from training.data.images import read_crop
from training.data.memory import available_bytes

log = logging.getLogger("training")
SHARE = 0.5  # of the available memory: the network, its gradients and the other processes want some too

Store = Callable[[int, NDArray[np.uint8]], object]


def decode_all(
    samples: Sequence[Sample],
    height: int,
    width: int,
    threads: int | None = None,
    folder: Path | None = None,
    limit_bytes: int | None = None,
    console: Console | None = None,
) -> Tensor:
    """The pictures of `samples`, uint8 [N, 3, height, width], RGB.

    Args:
        threads: the number of cores if not given.
        folder: where pictures that would take more than `limit_bytes` go, into a file without a name that is gone
            with the tensor; the tensor is then that file, mapped. Not given: they stay in memory, however many.
        limit_bytes: half of the available memory if not given.
        console: for a progress bar; None shows none.

    Raises:
        DataError: a picture cannot be read (the message names it, and nothing is decoded after it), or the folder's
            disk has no room for all of them.
    """
    shape = (len(samples), 3, height, width)
    limit = SHARE * available_bytes() if limit_bytes is None else limit_bytes
    if folder is not None and np.prod(shape, dtype=np.int64) > limit:
        return _in_file(samples, shape, threads, folder, console)
    pictures = torch.empty(shape, dtype=torch.uint8)
    memory = pictures.numpy()
    _decode(samples, height, width, threads, console, memory.__setitem__)
    return pictures


def check_readable(samples: Sequence[Sample], threads: int | None = None, console: Console | None = None) -> None:
    """Decode the pictures once and keep nothing: a damaged one is named before hours of training, not after.

    Raises:
        DataError: a picture cannot be read; the message names it.
    """
    _decode(samples, 1, 1, threads, console, lambda index, crop: None, "checking the test pictures")


def _in_file(
    samples: Sequence[Sample],
    shape: tuple[int, int, int, int],
    threads: int | None,
    folder: Path,
    console: Console | None,
) -> Tensor:
    """Written rather than mapped from the start: a full disk is then an error and no signal that ends the process."""
    *_, height, width = shape
    size = 3 * height * width
    folder.mkdir(parents=True, exist_ok=True)
    log.info(
        "%.1f GB of decoded pictures, too many for the memory, go to a file in %s", len(samples) * size / 1e9, folder
    )
    with tempfile.TemporaryFile(dir=folder) as file:  # nothing to clean up after a process that is killed

        def store(index: int, crop: NDArray[np.uint8]) -> None:
            if os.pwrite(file.fileno(), np.ascontiguousarray(crop).data, index * size) != size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        try:
            _decode(samples, height, width, threads, console, store)
        except OSError as error:
            raise DataError(
                f"{folder}: {error.strerror}; {len(samples) * size / 1e9:.1f} GB of decoded pictures, too many for the "
                "memory, go there: make room, choose another folder or smaller pictures"
            ) from error
        return torch.from_numpy(np.memmap(file, np.uint8, mode="c", shape=shape))  # which outlives the open file


def _decode(
    samples: Sequence[Sample],
    height: int,
    width: int,
    threads: int | None,
    console: Console | None,
    store: Store,
    title: str = "decoding",
) -> None:
    """Hand every picture, uint8 [3, height, width], to `store` with its index."""

    def decode(index: int) -> None:
        store(index, read_crop(samples[index], height, width).transpose(2, 0, 1))

    pool = ThreadPoolExecutor(threads or os.cpu_count())
    try:
        with _progress(console) as bar:
            for _ in bar.track(pool.map(decode, range(len(samples))), total=len(samples), description=title):
                pass
    finally:
        pool.shutdown(cancel_futures=True)


def _progress(console: Console | None) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=console is None)
