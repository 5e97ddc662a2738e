"""Augmentation, batched, per picture, on the training device (kornia)."""

from __future__ import annotations

import torch
from kornia.augmentation import RandomAffine, RandomErasing, RandomHorizontalFlip
from torch import Tensor, nn

from training.config import Config
from training.data.images import IMAGENET_MEAN, IMAGENET_STD


class Augment:
    """uint8 [N, 3, H, W] -> normalised float32 [N, 3, H, W], augmented; draws from torch's CPU generator.

    Rotation and translation are the paper's (section 3.1), as one affine warp; random erasing
    (Zhong et al., 2020) covers with the mean colour. The pictures lie on `device`. kornia's modules stay
    where they are made, on the CPU, and their random numbers with them: a seed draws the same for every device.
    """

    def __init__(self, config: Config, device: torch.device | None = None) -> None:
        steps: list[nn.Module] = []
        if config.rotation or config.translation:
            shift = (config.translation, config.translation)
            # A shift alone needs no interpolation, which would blur.
            resample = "bilinear" if config.rotation else "nearest"
            steps.append(RandomAffine(config.rotation, translate=shift, resample=resample, p=1.0))
        if config.flip:
            steps.append(RandomHorizontalFlip(p=config.flip))
        self.geometry = nn.Sequential(*steps)
        self.erase: nn.Module = nn.Identity()
        if config.erasing:
            self.erase = RandomErasing(scale=(0.02, 0.4), ratio=(0.3, 3.3), value=0.0, p=config.erasing)
        self.mean = torch.tensor(IMAGENET_MEAN, device=device).view(1, 3, 1, 1)
        self.std = torch.tensor(IMAGENET_STD, device=device).view(1, 3, 1, 1)

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> Tensor:
        x = self.geometry(pictures.float() / 255)
        erased: Tensor = self.erase((x - self.mean) / self.std)
        return erased
