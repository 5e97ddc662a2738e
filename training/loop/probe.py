"""What the self-attention does while it learns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from training.network.attention import SelfAttention


class Probe:
    """Keeps the attention's last input, values and weights, and computes on request."""

    def __init__(self, attention: SelfAttention) -> None:
        self.attention = attention
        self.x = self.values = self.weights = torch.empty(0)

    def keep_values(self, _module: nn.Module, _inputs: tuple[Tensor, ...], values: Tensor) -> None:
        self.values = values.detach()

    def keep_weights(self, _module: nn.Module, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, Tensor]) -> None:
        self.x, self.weights = inputs[0].detach(), outputs[1].detach()

    @torch.no_grad()
    def figures(self) -> dict[str, float]:
        """Of the last batch: alpha; the mean of ||alpha * o|| / ||x|| over the pictures (equation 6); the mean
        entropy of the attention's rows, in nats (log L where all positions are attended to alike)."""
        alpha, x = self.attention.alpha, self.x.float().flatten(1)
        o = self.values.float().flatten(2) @ self.weights.transpose(1, 2)
        ratio = (alpha * o).flatten(1).norm(dim=1) / x.norm(dim=1).clamp(min=1e-12)
        entropy = torch.special.entr(self.weights).sum(dim=-1)
        measured = torch.stack([alpha, ratio.mean(), entropy.mean()]).tolist()
        return dict(zip(("alpha", "attention_ratio", "attention_entropy"), measured, strict=True))


@contextmanager
def probed(attention: SelfAttention) -> Iterator[Probe]:
    """Watch an attention module through its forward passes; no pass of its own."""
    probe = Probe(attention)
    handles = [
        attention.h.register_forward_hook(probe.keep_values),
        attention.register_forward_hook(probe.keep_weights),
    ]
    try:
        yield probe
    finally:
        for handle in handles:
            handle.remove()
