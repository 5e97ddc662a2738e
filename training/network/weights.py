"""Pretrained weights into the backbone: any ResNet state dict with torchvision's names."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

from training.network.resnet import ResNet


@dataclass(frozen=True)
class Loaded:
    """What came from the file: names of the backbone's tensors, and one sentence for the log and the card."""

    names: frozenset[str]
    sentence: str


def load_backbone(network: ResNet, weights: str) -> Loaded:
    """Load `weights` into the backbone.

    Args:
        weights: a file with a state dict (complete or its first stages), "imagenet" for torchvision's
            (torchvision must be installed), or "none".

    Raises:
        ValueError: the file is no state dict, a tensor has another shape, or nothing fits.
    """
    if weights == "none":
        return Loaded(frozenset(), "from scratch, no pretrained weights")
    if weights == "imagenet":
        state, origin = _torchvision_weights(), "torchvision's ImageNet weights"
    else:
        state, origin = _read_state_dict(Path(weights))
    own = network.state_dict()
    fitting = {name: tensor for name, tensor in state.items() if name in own}
    wrong = [name for name, tensor in fitting.items() if tensor.shape != own[name].shape]
    if wrong or not fitting:
        reason = f"{wrong[0]} has another shape" if wrong else "no tensor has a name of this network"
        raise ValueError(f"{origin}: {reason}; a ResNet state dict with torchvision's names is needed")
    network.load_state_dict(fitting, strict=False)
    counters = "num_batches_tracked"
    fresh = sorted({name.split(".")[0] for name in own if name not in fitting and counters not in name})
    kept = sorted({name.split(".")[0] for name in fitting})
    sentence = f"{origin}: {', '.join(kept)}" + (f"; fresh: {', '.join(fresh)}" if fresh else "")
    return Loaded(frozenset(fitting), sentence)


def _read_state_dict(path: Path) -> tuple[dict[str, torch.Tensor], str]:
    if not path.is_file():
        raise ValueError(f"{path} does not exist: --weights takes a file, 'imagenet' or 'none'")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{path} is no PyTorch state dict: {error}") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(f"{path} is no plain state dict (name -> tensor)")
    return state, f"{path.name} (sha256 {digest[:16]})"


def _torchvision_weights() -> dict[str, torch.Tensor]:
    try:
        from torchvision.models import ResNet50_Weights
    except (ImportError, RuntimeError) as error:
        raise ValueError(f"'imagenet' needs a working torchvision ({error}); give --weights FILE") from error
    state = ResNet50_Weights.IMAGENET1K_V2.get_state_dict(progress=True)
    return {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
