"""All training pictures decoded once, as one uint8 tensor."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from training.data.dataset import Sample
from training.data.images import read_crop


def decode_all(samples: Sequence[Sample], height: int, width: int, threads: int | None = None) -> Tensor:
    """The pictures of `samples`, uint8 [N, 3, height, width], RGB; `threads` is the number of cores if not given.

    Raises:
        DataError: a picture cannot be read; the message names it. Nothing is decoded after it.
    """
    pictures = torch.empty((len(samples), 3, height, width), dtype=torch.uint8)

    def decode(index: int) -> None:
        crop = read_crop(samples[index], height, width)
        pictures[index] = torch.from_numpy(crop.copy()).permute(2, 0, 1)

    pool = ThreadPoolExecutor(threads or os.cpu_count())
    try:
        for _ in pool.map(decode, range(len(samples))):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
    return pictures
