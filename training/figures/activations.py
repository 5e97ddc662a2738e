"""What a network makes of pictures on the way to its embedding."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.network.model import Embedder

NAMES = ("conv1", "res2", "res3", "res4", "res5")  # the paper's Table 1, for ResNet.stages()


@dataclass(frozen=True)
class Activations:
    """Of N pictures: the feature maps [N, C, h, w] of each stage by its name, and the attention [N, L, L] over the
    positions of the last one, L = h * w."""

    stages: dict[str, NDArray[np.float32]]
    attention: NDArray[np.float32]

    @property
    def shape(self) -> tuple[int, int]:
        """h, w of the last map."""
        height, width = self.stages[NAMES[-1]].shape[2:]
        return height, width


def look(embedder: Embedder, crops: NDArray[np.uint8], device: torch.device | str = "cpu") -> Activations:
    """Watch one forward pass over crops [N, H, W, 3]; maps are taken behind their ReLU."""
    embedder = embedder.to(device)
    with torch.inference_mode(), _kept_maps(embedder) as maps:
        _, attention = embedder(torch.from_numpy(crops).to(device))
    return Activations({name: _array(kept) for name, kept in maps.items()}, _array(attention))


@contextmanager
def _kept_maps(embedder: Embedder) -> Iterator[dict[str, Tensor]]:
    """A dict that fills with the stages' maps, in their order, during a forward pass."""
    maps: dict[str, Tensor] = {}

    def keep(name: str, _module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        maps[name] = output.relu()  # the stem's hook is on its batch norm; the others end in a ReLU themselves

    stages = zip(NAMES, embedder.network.backbone.stages(), strict=True)
    handles = [modules[-1].register_forward_hook(partial(keep, name)) for name, (_, modules) in stages]
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return np.asarray(tensor.float().cpu().numpy(), np.float32)
