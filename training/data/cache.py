"""All training pictures decoded once, as one uint8 tensor."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from training.data.dataset import DataError, Sample
from training.data.images import to_crop


def decode_all(samples: Sequence[Sample], height: int, width: int, threads: int = 2) -> Tensor:
    """The pictures of `samples`, uint8 [N, 3, height, width], RGB.

    Raises:
        DataError: a picture cannot be read; the message names it.
    """
    pictures = torch.empty((len(samples), 3, height, width), dtype=torch.uint8)

    def decode(index: int) -> None:
        sample = samples[index]
        try:
            crop = to_crop(sample.read(), height, width)
        except (ValueError, OSError) as error:
            raise DataError(f"{sample.name}: {error}; remove it or copy it again") from error
        pictures[index] = torch.from_numpy(crop.copy()).permute(2, 0, 1)

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(decode, range(len(samples))):
            pass
    return pictures
