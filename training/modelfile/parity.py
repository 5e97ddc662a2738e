"""Is the file the network that was trained? Its outputs beside PyTorch's, on real crops."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from training.network.model import Embedder
from training.retrieval.onnx_model import open_session

Precision = Literal["fp32", "fp16", "int8"]
Crops = NDArray[np.uint8]
Outputs = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True)
class Bound:
    """How far a file's outputs may be from PyTorch's, in the worst of all crops."""

    cosine: float  # of the embeddings, at least
    attention: float  # between two weights, less than


# Unscaled scores are large, and a softmax makes much of a small difference: int8's attention must be finite, no more.
PARITY: dict[Precision, Bound] = {
    "fp32": Bound(0.99999, 1e-3),
    "fp16": Bound(0.9999, 2e-2),
    "int8": Bound(0.95, math.inf),
}
LENGTH_TOLERANCE = 1e-3  # of an embedding, which has length 1
BATCHES = (1, 7)
CROPS = 64


class ExportError(RuntimeError):
    """The exported file is not the network that was trained; nothing was written."""


@dataclass(frozen=True)
class Reference:
    """What PyTorch gives for crops uint8 [N, H, W, 3]: embedding [N, D], attention [N, L, L]."""

    crops: Crops
    embedding: NDArray[np.float32]
    attention: NDArray[np.float32]

    @classmethod
    def of(cls, model: Embedder, crops: Crops) -> Reference:
        with torch.inference_mode():
            outputs = [model(torch.from_numpy(part)) for part in np.array_split(crops, max(1, len(crops) // 8))]
        embedding, attention = (torch.cat(parts).numpy() for parts in zip(*outputs, strict=True))
        return cls(crops, embedding, attention)


def check_parity(reference: Reference, path: Path, precision: Precision) -> None:
    """Compare the file with PyTorch at every size of BATCHES.

    Raises:
        ExportError: an embedding points elsewhere or has another length than 1, or the attention differs.
    """
    session = open_session(path)
    for batch in BATCHES:
        embedding, attention = _run(session, reference.crops, batch)
        reason = _difference(reference, embedding, attention, precision)
        if reason:
            raise ExportError(f"at batch {batch} the {precision} file's {reason}: nothing was written")


def _run(session: Any, crops: Crops, batch: int) -> Outputs:
    parts = [
        session.run(["embedding", "attention"], {"crops": crops[first : first + batch]})
        for first in range(0, len(crops), batch)
    ]
    embedding, attention = (np.concatenate(part) for part in zip(*parts, strict=True))
    return embedding, attention


def _difference(
    reference: Reference, embedding: NDArray[np.float32], attention: NDArray[np.float32], precision: Precision
) -> str:
    """What is wrong with the file's outputs, or nothing. Every comparison is false for NaN."""
    lengths = np.linalg.norm(embedding, axis=1)
    if not (off := float(np.abs(lengths - 1).max())) < LENGTH_TOLERANCE:
        return f"embeddings are no unit vectors (off by {off:.4g})"
    lengths = lengths * np.linalg.norm(reference.embedding, axis=1)
    worst = float(((embedding * reference.embedding).sum(axis=1) / lengths).min())
    bound = PARITY[precision]
    if not worst >= bound.cosine:
        return f"embedding has cosine {worst:.6f} with PyTorch's, at least {bound.cosine} is needed"
    apart = float(np.abs(attention - reference.attention).max())
    if not apart < bound.attention:
        return f"attention is {apart:.4g} from PyTorch's, less than {bound.attention} is needed"
    return ""
