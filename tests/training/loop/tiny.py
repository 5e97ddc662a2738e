"""A network that trains in seconds, and what its run left."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from training.config import Config, build_config
from training.loop import checkpoint, runlog
from training.loop.distillation import Distiller
from training.loop.distributed import Processes
from training.loop.feed import Feed
from training.loop.learner import Batch, Learner
from training.loop.state import State
from training.network.attention import SelfAttention
from training.network.model import ReIDNet
from training.network.stored import read_checkpoint

SIZES = ["epochs=4", "height=32", "width=32", "base_width=8", "identities=4", "shots=2", "warmup_epochs=0.5"]
TINY = [*SIZES, "scale_scores=false", "score_factor=1"]  # the paper's attention, which learns as fast as the rest
CHANNELS = 256  # of the last map
CLASSES = 4
TIMES = ("seconds", "images_per_second")


def tiny(*overrides: str) -> Config:
    return build_config("smoke", overrides=[*TINY, *overrides])


def build_learner(config: Config, processes: Processes | None = None) -> Learner:
    """The same weights every time, with an attention that changes something."""
    torch.manual_seed(0)
    network = ReIDNet(config, CLASSES)
    if isinstance(network.attention, SelfAttention):
        network.attention.alpha.data.fill_(0.5)
    torch.nn.init.normal_(network.classifier.weight)
    distiller = Distiller(network.embedding_dim, 6) if config.distillation else None
    return Learner(network, distiller, config, processes)


def build_state(config: Config, processes: Processes | None = None, device: str = "cpu") -> State:
    return State(build_learner(config, processes).to(device), frozenset())


def build_batch(seed: int = 1) -> Batch:
    """Two pictures each of four people, and a teacher's embeddings of them."""
    random = torch.Generator().manual_seed(seed)
    target = functional.normalize(torch.randn(8, 6, generator=random))
    return Batch(torch.randn(8, 3, 32, 32, generator=random), torch.arange(CLASSES).repeat_interleave(2), target)


def log_of(run: Path) -> list[dict[str, Any]]:
    """log.jsonl without what no two runs share."""
    lines = [json.loads(line) for line in (run / runlog.LOG).read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def steps_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / runlog.STEPS).read_text().splitlines()]


def weights_of(run: Path, part: str = "model") -> dict[str, Tensor]:
    weights: dict[str, Tensor] = read_checkpoint(run / checkpoint.LATEST).state[part]
    return weights


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Equal to the bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def interrupt_in(patch: pytest.MonkeyPatch, epoch: int) -> None:
    """Ctrl-C after the first batch of an epoch (from 0) of the process."""
    original, epochs = Feed.batches, 0

    def batches(self: Feed, drawn: Any) -> Iterator[Batch]:
        nonlocal epochs
        epochs += 1
        found = original(self, drawn)
        yield next(found)
        if epochs == epoch + 1:
            raise KeyboardInterrupt
        yield from found

    patch.setattr(Feed, "batches", batches)
