"""The whole network: ResNet-50, self-attention, pooled embedding, classifier (the paper's Fig. 2)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.config import Config
from training.network.attention import SelfAttention
from training.network.resnet import ResNet

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Features:
    """What one forward pass gives: `pooled` [N, D] for the triplet loss, `embedding` [N, D] for retrieval
    (the same, or behind the BNNeck), `logits` [N, classes], `attention` [N, L, L]."""

    pooled: Tensor
    embedding: Tensor
    logits: Tensor
    attention: Tensor


class ReIDNet(nn.Module):
    """Normalised pictures [N, 3, H, W] -> Features.

    With `config.bnneck` a batch norm separates the triplet loss's space from the classifier's
    (Luo et al., "Bag of Tricks", 2019), and the classifier has no bias.
    """

    def __init__(self, config: Config, classes: int) -> None:
        super().__init__()
        self.backbone = ResNet(config.layers, config.base_width, config.last_stride, config.stride_placement)
        dim = self.backbone.channels
        self.attention = SelfAttention(dim, config.value_reduction, config.scale_scores)
        self.bnneck: nn.Module = nn.Identity()
        if config.bnneck:
            neck = nn.BatchNorm1d(dim)
            neck.bias.requires_grad_(False)
            self.bnneck = neck
        self.classifier = nn.Linear(dim, classes, bias=not config.bnneck)
        nn.init.normal_(self.classifier.weight, std=0.001)

    def forward(self, x: Tensor) -> Features:
        y, attention = self.attention(self.backbone(x))
        pooled = y.mean(dim=(2, 3))
        embedding = self.bnneck(pooled)
        return Features(pooled, embedding, self.classifier(embedding), attention)


class Embedder(nn.Module):
    """The network as it is served: crops uint8 [N, H, W, 3] RGB -> unit embedding [N, D], attention [N, L, L]."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: ReIDNet) -> None:
        super().__init__()
        self.network = network.eval()
        self.register_buffer("mean", 255 * torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        x = (crops.permute(0, 3, 1, 2).float() - self.mean) / self.std
        features = self.network(x)
        return functional.normalize(features.embedding.float(), dim=1), features.attention


def load_checkpoint_model(path: Path | str) -> Embedder:
    """The embedder of a checkpoint, in evaluation mode on the CPU.

    Raises:
        ValueError: the file is no checkpoint of `training/train.py`.
    """
    checkpoint = read_checkpoint(path)
    network = ReIDNet(Config.from_dict(checkpoint["config"]), checkpoint["classes"])
    network.load_state_dict(checkpoint["model"])
    return Embedder(network).eval()


def read_checkpoint(path: Path | str) -> dict[str, Any]:
    """The dict that `training.loop.checkpoint` wrote, tensors on the CPU."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        if not {"config", "classes", "model"} <= set(checkpoint):
            raise KeyError("config, classes, model")
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(f"{path} is no checkpoint of training/train.py: {error}") from error
    return dict(checkpoint)
