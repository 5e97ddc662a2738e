"""What the attention does while it learns."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.network.attention import NoAttention, SelfAttention
from training.network.model import Embedder, ReIDNet


@torch.no_grad()
def attention_figures(network: ReIDNet, pictures: Tensor) -> dict[str, float]:
    """Figures of a network's attention on some pictures, uint8 [N, 3, H, W] on its device; empty without attention.

    `alpha` (self-attention only); `attention_ratio`, the mean of ||y - x|| / ||x|| over the pictures, which is
    ||alpha * o|| / ||x|| in equation 6; `attention_entropy`, the mean entropy of the attention's rows, in nats
    (log L where all positions are attended to alike). Leaves the network in evaluation mode.
    """
    attention = network.attention
    if isinstance(attention, NoAttention):
        return {}
    measured: dict[str, Tensor] = {}

    def measure(_module: nn.Module, inputs: tuple[Tensor], outputs: tuple[Tensor, Tensor]) -> None:
        (x,), (y, weights) = inputs, outputs
        change, size = (y - x).flatten(1).norm(dim=1), x.flatten(1).norm(dim=1)
        measured["attention_ratio"] = (change / size.clamp(min=1e-12)).mean()
        measured["attention_entropy"] = torch.special.entr(weights).sum(dim=-1).mean()

    handle = attention.register_forward_hook(measure)
    try:
        Embedder(network).to(pictures.device)(pictures.permute(0, 2, 3, 1))
    finally:
        handle.remove()
    if isinstance(attention, SelfAttention):
        measured = {"alpha": attention.alpha, **measured}
    return {name: value.item() for name, value in measured.items()}
