"""Whether a file has the bytes that were written, and its tensors are weights: dense numbers, and finite."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from zipfile import ZipFile

import torch
from torch import Tensor

ZIP = b"PK\x03\x04"  # how a file of torch's begins
COUNTER = "num_batches_tracked"  # a batch norm's buffer that many files lack and nothing here needs


def first_unusable(state: Mapping[str, Tensor]) -> str:
    """The first tensor that cannot be a weight, and why, as a clause; empty where all can."""
    for name, tensor in state.items():
        if reason := _reason(name, tensor):
            return f"{name} is {reason}"
    return ""


def _reason(name: str, tensor: Tensor) -> str:
    if tensor.is_nested or tensor.layout is not torch.strided:
        return "sparse or nested: save it dense"
    if tensor.is_meta:
        return "on the meta device, without values: save it with its values"
    if tensor.is_quantized:
        return "quantised: save it in floating point"
    if tensor.is_complex() or (not tensor.is_floating_point() and COUNTER not in name):
        return f"of {str(tensor.dtype).removeprefix('torch.')}: save it in floating point"
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float()).all()):
        return "not finite (NaN or infinite): the file is damaged, or of a training that failed"
    return ""


def damaged_part(path: Path) -> str | None:
    """The first part of a file of torch's whose checksum is wrong; torch itself reads flipped bits without a word.

    Raises:
        OSError: it cannot be read.
        BadZipFile: it is cut short.
    """
    with path.open("rb") as file:
        if file.read(len(ZIP)) != ZIP:  # as torch wrote them before version 1.6: without checksums
            return None
        with ZipFile(file) as parts:
            return parts.testzip()
