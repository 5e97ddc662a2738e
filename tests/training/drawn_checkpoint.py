"""A checkpoint without a training: weights are drawn, the batch norms have the statistics of the training pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from training.config import Config, build_config
from training.data.dataset import Dataset
from training.data.images import read_crop
from training.loop.runlog import data_fingerprint
from training.network.attention import SelfAttention
from training.network.model import Embedder, ReIDNet
from training.network.stored import Checkpoint


def tiny_config(**changes: Any) -> Config:
    """A network that is exported in seconds, of 64 x 32 crops.

    Drawn weights make large scores: scaled ones leave the attention more than one position, as a training would.
    """
    settings = {"base_width": 8, "epochs": 2, "scale_scores": True}
    return Config.from_dict(build_config("smoke").to_dict() | settings | changes)


def draw_checkpoint(data: Dataset, config: Config) -> Checkpoint:
    """The checkpoint as `read_checkpoint` would give it, of a run on `data`."""
    classes = len({sample.identity for sample in data.train}) - config.calibration_identities
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = ReIDNet(config, classes)
    if isinstance(network.attention, SelfAttention):
        nn.init.constant_(network.attention.alpha, 0.1)  # from zero the attention would change no embedding
    _measure_statistics(network, data)
    state = {
        "model": network.state_dict(),
        "epoch": config.epochs,
        "config": config.to_dict(),
        "classes": classes,
        "initialisation": "drawn",
        "teacher": "none",
        "data": data_fingerprint(data),
        "environments": [{"revision": "first"}, {"revision": "second", "started": "2026-01-31T12:00:00+00:00"}],
    }
    return Checkpoint(Path("checkpoint.pt"), state, config)


def _measure_statistics(network: ReIDNet, data: Dataset) -> None:
    """Set the running mean and variance of every batch norm to those of the training pictures."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = None  # the plain mean of what it sees
    embedder = Embedder(network)
    network.train()
    crops = np.stack([read_crop(sample, 64, 32) for sample in data.train])
    with torch.no_grad():
        embedder(torch.from_numpy(crops))
    network.eval()
