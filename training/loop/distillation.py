"""Learning from another model's embeddings of the training pictures, as an openly declared option."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from training.data.arrays import read_array


@dataclass(frozen=True)
class Teacher:
    """Unit embeddings [N, T] of the training pictures in the order of their names, and where they came from."""

    embeddings: Tensor
    origin: str


def read_teacher(path: Path, count: int) -> Teacher:
    """Read a .npy file, float [count, T].

    Raises:
        ValueError: no such array, another number of rows, or a row without direction.
    """
    array = read_array(path)
    if array.ndim != 2 or len(array) != count or array.dtype.kind != "f":
        raise ValueError(
            f"{path} holds {array.dtype} {array.shape}: floats ({count}, D) are needed, one row a training picture"
        )
    embeddings = functional.normalize(torch.from_numpy(array.astype(np.float32)), dim=1)
    if not torch.isfinite(embeddings).all() or (embeddings.norm(dim=1) < 0.5).any():
        raise ValueError(f"{path} holds rows that are zero, infinite or NaN")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Teacher(embeddings, f"{path.name} (sha256 {digest[:16]})")


class Distiller(nn.Module):
    """Mean of 1 - cosine between a linear projection of the student's embedding and the teacher's."""

    def __init__(self, student_dim: int, teacher_dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(student_dim, teacher_dim, bias=False)

    def forward(self, embedding: Tensor, target: Tensor) -> Tensor:
        """embedding [N, D], target unit vectors [N, T] -> scalar in [0, 2]."""
        projected: Tensor = self.project(embedding.float())
        return (1 - functional.cosine_similarity(projected, target, dim=1)).mean()
