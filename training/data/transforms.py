"""Augmentation, batched, per picture, on the training device (kornia)."""

from __future__ import annotations

import torch
from kornia.augmentation import RandomAffine, RandomErasing, RandomHorizontalFlip
from torch import Tensor, nn

from training.config import Config
from training.network.model import IMAGENET_MEAN, IMAGENET_STD


class Augment(nn.Module):
    """uint8 [N, 3, H, W] -> normalised float32 [N, 3, H, W], augmented; draws from torch's global generator.

    Rotation and translation are the paper's (section 3.1), as one affine warp; random erasing
    (Zhong et al., 2020) covers with the mean colour.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        steps: list[nn.Module] = []
        if config.rotation or config.translation:
            shift = (config.translation, config.translation)
            steps.append(RandomAffine(config.rotation, translate=shift, p=1.0))
        if config.flip:
            steps.append(RandomHorizontalFlip(p=config.flip))
        self.geometry = nn.Sequential(*steps)
        self.erase: nn.Module = nn.Identity()
        if config.erasing:
            self.erase = RandomErasing(scale=(0.02, 0.4), ratio=(0.3, 3.3), value=0.0, p=config.erasing)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))

    @torch.no_grad()
    def forward(self, pictures: Tensor) -> Tensor:
        x = self.geometry(pictures.float() / 255)
        erased: Tensor = self.erase((x - self.mean) / self.std)
        return erased
