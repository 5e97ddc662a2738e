"""Files with a state dict as the field leaves them: PyTorch's or safetensors, wrapped, names prefixed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from training.network.tensors import damaged_part

WRAPPERS = ("state_dict", "model")  # keys under which training programs keep the state dict
PREFIXES = ("module.", "backbone.", "model.")  # of DataParallel, and of networks that hold the backbone
OWN = ("conv1.", "bn1.", "layer")  # how the names of a backbone start


def read_state_dict(path: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a file, as names of a backbone -> tensors on the CPU, and what the log calls the file.

    The file is PyTorch's or, by its ending, `.safetensors`. A state dict under "state_dict" or "model" is found. Where
    all the backbone's names stand behind a prefix, it is taken off, and what lies beside it in the file is left out.

    Raises:
        ValueError: there is no such file, or it holds no state dict.
    """
    if not path.is_file():
        what = "is no file" if path.exists() else "does not exist"
        raise ValueError(f"{path} {what}: --weights takes a file, 'imagenet' or 'none'")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    state = _unwrap(_load(path))
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise ValueError(f"{path} is no plain state dict (name -> tensor)")
    state, prefix = _strip_prefixes(state)
    return state, f"{path.name} (sha256 {digest[:16]}{f', names under {prefix}' if prefix else ''})"


def _load(path: Path) -> Any:
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
            raise ValueError(f"{path} is no safetensors file: {error}") from error
    try:
        damaged = damaged_part(path)
        state = None if damaged else torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # pickle, zip and torch each raise their own; torch's text advises to load it unsafely
        raise ValueError(
            f"{path} is no PyTorch state dict: it cannot be read, or holds other objects than tensors; "
            "save the state dict alone"
        ) from error
    if damaged:
        raise ValueError(f"{path} is damaged (the checksum of its part {damaged} is wrong): copy or download it again")
    return state


def _unwrap(content: Any) -> Any:
    while isinstance(content, dict):
        inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), dict)), None)
        if inner is None:
            break
        content = inner
    return content


def _strip_prefixes(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """`state` with plain names, and the prefix that they had."""
    removed = ""
    while not any(name.startswith(OWN) for name in state):
        prefix = next((prefix for prefix in PREFIXES if any(name.startswith(prefix) for name in state)), "")
        if not prefix:
            break
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        removed += prefix
    return state, removed
