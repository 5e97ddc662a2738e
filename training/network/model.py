"""The whole network: ResNet-50, attention, pooled embedding, classifier (the paper's Fig. 2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.config import Config
from training.data.images import IMAGENET_MEAN, IMAGENET_STD
from training.network.attention import build_attention
from training.network.resnet import ResNet


@dataclass(frozen=True)
class Features:
    """What one forward pass gives: `pooled` [N, D], the mean over the map or its projection, for the triplet loss;
    `embedding` [N, D] for retrieval (the same, or behind the BNNeck); `logits` [N, classes]; `attention` [N, L, L],
    whose rows sum to one. All are float32."""

    pooled: Tensor
    embedding: Tensor
    logits: Tensor
    attention: Tensor


class ReIDNet(nn.Module):
    """Normalised pictures [N, 3, H, W] -> Features.

    The mean over the map is the embedding, of as many values as the map has channels (the paper's "2048-d vector"),
    or of `config.embedding_dim` by a learnt linear projection. With `config.bnneck` a batch norm separates the
    triplet loss's space from the classifier's (Luo et al., "Bag of Tricks", 2019), and the classifier has no bias.
    """

    def __init__(self, config: Config, classes: int) -> None:
        super().__init__()
        self.backbone = ResNet(
            config.layers, config.base_width, config.last_stride, config.stride_placement, config.instance_norms
        )
        self.attention = build_attention(config, self.backbone.channels)
        self.embedding_dim = config.embedding_dim or self.backbone.channels
        self.projection: nn.Module = nn.Identity()
        if config.embedding_dim:
            self.projection = nn.Linear(self.backbone.channels, self.embedding_dim, bias=False)
        self.bnneck: nn.Module = nn.Identity()
        if config.bnneck:
            neck = nn.BatchNorm1d(self.embedding_dim)
            neck.bias.requires_grad_(False)
            self.bnneck = neck
        self.classifier = nn.Linear(self.embedding_dim, classes, bias=not config.bnneck)
        nn.init.normal_(self.classifier.weight, std=0.001)

    def forward(self, x: Tensor) -> Features:
        y, attention = self.attention(self.backbone(x))
        # The mean over a map, statistics over a batch and logits of hundreds of classes need more than bfloat16.
        with torch.autocast(x.device.type, enabled=False):
            pooled = self.projection(y.float().mean(dim=(2, 3)))
            embedding = self.bnneck(pooled)
            logits = self.classifier(embedding)
        return Features(pooled, embedding, logits, attention)


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
        return functional.normalize(features.embedding, dim=1), features.attention
