"""Several processes that train one network: `torchrun --nproc-per-node N -- training/train.py …`.

A batch is always the whole one: every process draws and augments the same P x K pictures and trains on its own
P/N identities. The triplet loss sees the features of all processes, the gradients are averaged, and on CUDA
batch norms take their statistics over all processes. So N processes do what one would do.
On the CPU, which has no such batch norm, each process has the statistics of its own part.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from training.config import ConfigError
from training.network.device import DeviceError

# How long the others wait while the first process measures or draws.
PATIENCE = timedelta(hours=4)


@dataclass(frozen=True)
class Processes:
    """Which of how many processes this is; alone if nobody says otherwise. Only the first one writes and speaks."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def part(self, identities: int, shots: int) -> slice:
        """This process's rows of a batch, which is grouped by identity.

        Raises:
            ConfigError: the identities cannot be shared out evenly.
        """
        if identities % self.size:
            raise ConfigError(
                f"identities is {identities}: {self.size} processes need a multiple of {self.size}, "
                "so that each takes as many"
            )
        return self.own(identities // self.size * shots)

    def own(self, count: int) -> slice:
        """This process's rows among the rows of all, where each has `count`."""
        return slice(self.rank * count, (self.rank + 1) * count)

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of all processes [size * n, …], in their order, where each has [n, …]; gradients come back."""
        return rows if self.size == 1 else _Gather.apply(rows)  # type: ignore[no-untyped-call]

    def mean(self, figures: Tensor) -> Tensor:
        """The mean over all processes; not finite as soon as it is so in one of them."""
        if self.size > 1:
            dist.all_reduce(figures)
            figures /= self.size
        return figures

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            dist.barrier()

    def agree(self, facts: Mapping[str, Any]) -> None:
        """Let every process see what the others found.

        Args:
            facts: the same names in every process, with values that can be pickled.

        Raises:
            ConfigError: in every process, where one found something else than the first: they would wait for each
                other for ever.
        """
        if self.size == 1:
            return
        told: list[Any] = [None] * self.size
        dist.all_gather_object(told, dict(facts))
        for rank, found in enumerate(told):
            for name, value in told[0].items():
                if found[name] != value:
                    raise ConfigError(
                        f"process {rank} found {name} {found[name]}, the first one {value}: every machine needs the "
                        "same data and the same run folder, on a file system that they share"
                    )

    def join_batch_norms(self, network: nn.Module, device: torch.device) -> None:
        """Let the batch norms take their statistics over all processes, where the device can (CUDA)."""
        if self.size > 1 and device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]

    def wrap(self, module: nn.Module, *, unused: bool) -> nn.Module:
        """`module` with its gradients averaged over the processes.

        Args:
            unused: some parameters get no gradient.
        """
        if self.size == 1:
            return module
        return DistributedDataParallel(module, find_unused_parameters=unused)


class _Gather(torch.autograd.Function):
    """Rows of all processes. What the losses of all processes say about one's rows is summed on the way back."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.count = len(rows)
        parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        first = dist.get_rank() * ctx.count
        return total[first : first + ctx.count]


@contextmanager
def joined(device: torch.device, init_method: str = "env://") -> Iterator[tuple[Processes, torch.device]]:
    """Join the processes that torchrun started, each with a card of its own; alone where nobody started any.

    Args:
        init_method: where they meet; torchrun says so in the environment.

    Raises:
        DeviceError: there are more processes than cards, or one card was named for all.
    """
    if not {"RANK", "WORLD_SIZE"} <= set(os.environ):
        yield Processes(), device
        return
    processes = Processes(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    if device.type == "cuda":
        device = _own_card(device, int(os.environ.get("LOCAL_RANK", processes.rank)))
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        init_method=init_method,
        rank=processes.rank,
        world_size=processes.size,
        timeout=PATIENCE,
    )
    try:
        yield processes, device
    finally:
        dist.destroy_process_group()


def _own_card(device: torch.device, local_rank: int) -> torch.device:
    if device.index is not None:
        raise DeviceError(f"--device {device}: with several processes say cuda; each takes a card of its own")
    if local_rank >= torch.cuda.device_count():
        raise DeviceError(
            f"process {local_rank} finds {torch.cuda.device_count()} CUDA devices: give torchrun no more processes "
            "than there are"
        )
    card = torch.device("cuda", local_rank)
    torch.cuda.set_device(card)
    return card
