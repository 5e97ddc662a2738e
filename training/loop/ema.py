"""The exponential moving average of a network's weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from training.network.model import ReIDNet


class RunningMean:
    """A copy of a network whose weights and batch-norm statistics follow the original's, step by step.

    mean <- decay * mean + (1 - decay) * network, from the weights that training starts with. The arithmetic is
    torch.optim.swa_utils'; its AveragedModel counts its steps on the device and waits for the device to read them.
    """

    def __init__(self, network: ReIDNet, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def update(self, network: ReIDNet) -> None:
        """Take up the weights of one step; counters, which have no mean, are copied."""
        mine, theirs = _tensors(self.network), _tensors(network)
        self.average(mine[True], theirs[True], 0)
        for counter, current in zip(mine[False], theirs[False], strict=True):
            counter.copy_(current)


def _tensors(network: nn.Module) -> dict[bool, list[Tensor]]:
    """Parameters and buffers, by whether they are floating point."""
    tensors: dict[bool, list[Tensor]] = {True: [], False: []}
    for tensor in (*network.parameters(), *network.buffers()):
        tensors[tensor.is_floating_point()].append(tensor.detach())
    return tensors
