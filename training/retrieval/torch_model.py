"""A PyTorch network as a function from crops to embeddings: a live one, or a checkpoint of a training run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from training.network.model import Embedder
from training.network.stored import Checkpoint, load_checkpoint_model, read_checkpoint


class NetworkModel:
    """A network in memory, moved to `device`: `embed` turns crops of `height` x `width` into embeddings.

    Args:
        embedder: in evaluation mode, and left so by whoever trains the same network meanwhile.
        height, width: of the crops, in pixels.
        device: torch's name of it.
    """

    def __init__(self, embedder: Embedder, height: int, width: int, device: torch.device | str = "cpu") -> None:
        self.height, self.width = height, width
        self.device = torch.device(device)
        self._module = embedder.to(self.device)

    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embeddings float32 [N, D] of crops uint8 [N, height, width, 3] RGB."""
        with torch.inference_mode():
            embedding, _ = self._module(torch.from_numpy(crops).to(self.device))
        return np.asarray(embedding.float().cpu().numpy(), np.float32)


class TorchModel(NetworkModel):
    """An open checkpoint on `device`.

    Args:
        source: a checkpoint that was read, or its path.
        device: torch's name of it.
        threads: of torch on the CPU; 0 leaves the number to it.

    Raises:
        ValueError: the file is no checkpoint of `training/train.py`, or one without full-size epochs.
    """

    def __init__(self, source: Path | Checkpoint, device: torch.device | str = "cpu", threads: int = 0) -> None:
        checkpoint = read_checkpoint(source) if isinstance(source, Path) else source
        if threads:
            torch.set_num_threads(threads)
        config = checkpoint.config
        super().__init__(load_checkpoint_model(checkpoint), config.height, config.width, device)
        self.path = checkpoint.path
