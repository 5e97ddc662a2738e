"""A checkpoint of a training run as a function from crops to embeddings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from training.network.stored import Checkpoint, load_checkpoint_model, read_checkpoint


class TorchModel:
    """An open checkpoint on `device`: `embed` turns crops of `height` x `width` into embeddings.

    Args:
        source: a checkpoint that was read, or its path.
        device: torch's name of it.
        threads: of torch on the CPU; 0 leaves the number to it.

    Raises:
        ValueError: the file is no checkpoint of `training/train.py`, or one without full-size epochs.
    """

    def __init__(self, source: Path | Checkpoint, device: torch.device | str = "cpu", threads: int = 0) -> None:
        checkpoint = read_checkpoint(source) if isinstance(source, Path) else source
        self.path = checkpoint.path
        self.height, self.width = checkpoint.config.height, checkpoint.config.width
        self.device = torch.device(device)
        if threads:
            torch.set_num_threads(threads)
        self._module = load_checkpoint_model(checkpoint).to(self.device)

    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embeddings float32 [N, D] of crops uint8 [N, height, width, 3] RGB."""
        with torch.inference_mode():
            embedding, _ = self._module(torch.from_numpy(crops).to(self.device))
        return np.asarray(embedding.cpu().numpy(), np.float32)
