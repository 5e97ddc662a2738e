"""A checkpoint of a training run as a function from crops to embeddings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from training.config import Config
from training.network.model import load_checkpoint_model, read_checkpoint


class TorchModel:
    """An open checkpoint, on the CPU: `embed` turns crops of `height` x `width` into embeddings.

    Raises:
        ValueError: the file is no checkpoint of `training/train.py`.
    """

    def __init__(self, path: Path, threads: int = 0) -> None:
        config = Config.from_dict(read_checkpoint(path)["config"])
        self.height, self.width = config.height, config.width
        if threads:
            torch.set_num_threads(threads)
        self._module = load_checkpoint_model(path)

    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embeddings float32 [N, D] of crops uint8 [N, height, width, 3] RGB."""
        with torch.inference_mode():
            embedding, _ = self._module(torch.from_numpy(crops))
        return np.asarray(embedding.numpy(), np.float32)
