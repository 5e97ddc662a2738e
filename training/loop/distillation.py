"""Learning from another model's embeddings of the training pictures, as an openly declared option.

A teacher is either a file of embeddings, one a picture, or the model itself, which then embeds every picture as it
was augmented, but for random erasing: teacher and student see the same person in the same light (Beyer et al.,
"Knowledge distillation: a good teacher is patient and consistent", CVPR 2022), and of what is erased for the student
the teacher tells what it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from training.data.arrays import read_array
from training.retrieval.onnx_model import OnnxModel

ONNX = ".onnx"
AT_ONCE = 16  # crops: of 64 the maps leave the cache, and a small model takes half as long again


@dataclass(frozen=True)
class TeacherFile:
    """Embeddings in a .npy file, a row a picture in the order of their names, or an ONNX model, with its input layout
    (a key of INPUT_LAYOUTS) where the file does not tell it."""

    path: Path
    layout: str | None = None


class Teacher(Protocol):
    """What a student learns from; `origin` says where that came from, for checkpoint, metadata and card."""

    origin: str
    dim: int

    def __call__(self, rows: Tensor, pictures: Tensor) -> Tensor:
        """Unit embeddings float32 [N, dim] of the pictures float [N, 3, H, W] in [0, 1], augmented from those in
        `rows` int64 [N]; on the device of `rows`.

        Raises:
            ValueError: an embedding without direction.
        """


class StoredTeacher:
    """Unit embeddings [N, T] of the pictures as they are."""

    def __init__(self, embeddings: Tensor, origin: str) -> None:
        self.embeddings, self.origin, self.dim = embeddings, origin, embeddings.shape[1]

    def __call__(self, rows: Tensor, pictures: Tensor) -> Tensor:
        return self.embeddings[rows]


class LiveTeacher:
    """A model that embeds each augmented picture, on the CPU, at its own size."""

    def __init__(self, model: OnnxModel, origin: str) -> None:
        self.model, self.origin = model, origin
        self.dim = model.embed(np.zeros((1, model.height, model.width, 3), np.uint8)).shape[1]

    @torch.no_grad()
    def __call__(self, rows: Tensor, pictures: Tensor) -> Tensor:
        size = (self.model.height, self.model.width)
        resized = functional.interpolate(pictures, size, mode="bilinear", antialias=True)
        crops = (resized.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        parts = [self.model.embed(crops[first : first + AT_ONCE]) for first in range(0, len(crops), AT_ONCE)]
        return _unit(np.concatenate(parts), self.model.path).to(rows.device)


def read_teacher(file: TeacherFile, rows: Sequence[int], count: int, device: torch.device) -> Teacher:
    """Open a teacher of the pictures `rows` among the `count` of the training part.

    Raises:
        ValueError: the array has other rows, the model does not run, or an embedding has no direction.
    """
    if file.path.suffix == ONNX:
        return LiveTeacher(OnnxModel(file.path, file.layout), f"{_named(file.path)}, which saw every augmented picture")
    if file.layout is not None:
        raise ValueError(f"{file.path} is no {ONNX} file: --teacher-layout is for models")
    array = read_array(file.path)
    if array.ndim != 2 or len(array) != count or array.dtype.kind != "f":
        raise ValueError(
            f"{file.path} holds {array.dtype} {array.shape}: floats ({count}, D) are needed, one row a training picture"
        )
    return StoredTeacher(_unit(array, file.path)[list(rows)].to(device), _named(file.path))


def _unit(array: NDArray[np.floating], path: Path) -> Tensor:
    embeddings = functional.normalize(torch.from_numpy(array.astype(np.float32)), dim=1)
    if not torch.isfinite(embeddings).all() or (embeddings.norm(dim=1) < 0.5).any():
        raise ValueError(f"{path} gives embeddings that are zero, infinite or NaN")
    return embeddings


def _named(path: Path) -> str:
    return f"{path.name} (sha256 {hashlib.sha256(path.read_bytes()).hexdigest()[:16]})"


class Distiller(nn.Module):
    """Mean of 1 - cosine between a linear projection of the student's embedding and the teacher's."""

    def __init__(self, student_dim: int, teacher_dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(student_dim, teacher_dim, bias=False)

    def forward(self, embedding: Tensor, target: Tensor) -> Tensor:
        """embedding [N, D], target unit vectors [N, T] -> scalar in [0, 2]."""
        projected: Tensor = self.project(embedding.float())
        return (1 - functional.cosine_similarity(projected, target, dim=1)).mean()


def relation_loss(embedding: Tensor, target: Tensor, anchors: slice | None = None) -> Tensor:
    """Mean squared difference of the cosines between the pictures of a batch, embedded by the student, [N, D], and by
    the teacher, [N, T], each about its mean over the batch (relational distillation: Park et al., CVPR 2019, on
    cosines) -> scalar.

    The retrieval itself knows no projection: this holds the student's own distances to the teacher's. About the mean,
    because a BNNeck takes the mean out of the student's: what all of the teacher's have in common it could not follow.

    Args:
        anchors: the rows whose cosines count, where the others were gathered from other processes; None: all.
    """
    own, told = (functional.normalize(e.float() - e.float().mean(dim=0), dim=1) for e in (embedding, target))
    different = ~torch.eye(len(own), dtype=torch.bool, device=own.device)
    rows = slice(None) if anchors is None else anchors
    return (own[rows] @ own.T - told[rows] @ told.T)[different[rows]].square().mean()
