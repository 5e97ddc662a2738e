"""Augmentation, batched, per picture, on the training device (kornia)."""

from __future__ import annotations

import torch
from kornia.augmentation import (
    ColorJitter,
    RandomAffine,
    RandomErasing,
    RandomGaussianBlur,
    RandomGrayscale,
    RandomHorizontalFlip,
    RandomVerticalFlip,
)
from torch import Tensor, nn

from training.config import Config
from training.data.images import IMAGENET_MEAN, IMAGENET_STD

WAIST = (0.4, 0.6)  # of the height: where recombined pictures are cut
BLUR_KERNEL = (7, 7)  # pixels
BLUR_SIGMA = (0.1, 2.0)  # pixels


class Augment:
    """uint8 [N, 3, H, W] -> normalised float32 [N, 3, H, W], augmented; draws from torch's CPU generator.

    Rotation, translation and flips are the paper's (sections 3.1 and 4.2), the first two with `zoom` as one affine
    warp: a picture enlarged to 9/8 and shifted by 1/16 at most is a random crop of the enlarged one. Colour changes
    come before the normalisation; random erasing (Zhong et al., 2020) covers with the mean colour after it.
    The pictures lie on `device`. kornia's modules stay where they are made, on the CPU, and their random numbers
    with them: a seed draws the same for every device.
    """

    def __init__(self, config: Config, device: torch.device | None = None) -> None:
        steps = [*_warp(config)]
        if config.flip:
            steps.append(RandomHorizontalFlip(p=config.flip))
        if config.vertical_flip:
            steps.append(RandomVerticalFlip(p=config.vertical_flip))
        if config.colour:
            steps.append(ColorJitter(brightness=config.colour, contrast=config.colour, saturation=config.colour, p=1.0))
        if config.cast:
            steps.append(ColourCast(config.cast))
        if config.grey:
            steps.append(RandomGrayscale(p=config.grey))
        if config.blur:
            steps.append(RandomGaussianBlur(BLUR_KERNEL, BLUR_SIGMA, p=config.blur))
        self.steps = nn.Sequential(*steps)
        self.erase: nn.Module = nn.Identity()
        if config.erasing:
            self.erase = RandomErasing(scale=(0.02, 0.4), ratio=(0.3, 3.3), value=0.0, p=config.erasing)
        self.mean = torch.tensor(IMAGENET_MEAN, device=device).view(1, 3, 1, 1)
        self.std = torch.tensor(IMAGENET_STD, device=device).view(1, 3, 1, 1)

    def __call__(self, pictures: Tensor) -> Tensor:
        return self.prepare(self.vary(pictures))

    @torch.no_grad()
    def vary(self, pictures: Tensor) -> Tensor:
        """uint8 [N, 3, H, W] -> float32 [N, 3, H, W] in [0, 1]: all but the erasing, a picture still."""
        varied: Tensor = self.steps(pictures.float() / 255)
        return varied

    @torch.no_grad()
    def prepare(self, pictures: Tensor) -> Tensor:
        """float32 [N, 3, H, W] in [0, 1] -> the network's input: normalised, and partly erased."""
        erased: Tensor = self.erase((pictures - self.mean) / self.std)
        return erased


class ColourCast(nn.Module):
    """Pictures float [N, 3, H, W] in [0, 1] in other light: each channel times 1 - `most` to 1 + `most`."""

    def __init__(self, most: float) -> None:
        super().__init__()
        self.most = most

    def forward(self, pictures: Tensor) -> Tensor:
        gains = 1 + self.most * (2 * torch.rand(len(pictures), 3, 1, 1) - 1)
        return (pictures * gains.to(pictures.device)).clamp(0, 1)


def recombine(pictures: Tensor, shots: int, recombined: int) -> tuple[Tensor, Tensor]:
    """People who are on no picture: the last `recombined` of each identity's `shots` get another identity's legs.

    A person in the same coat and other trousers is another one, which colours alone do not teach.

    Args:
        pictures: [identities * shots, 3, H, W], grouped by identity, of two at least.

    Returns:
        The pictures, and which are recombined, bool [identities * shots] on their device.
    """
    count, height = len(pictures), pictures.shape[2]
    number = torch.arange(count)
    changed = number % shots >= shots - recombined
    # Some shot of the identity that comes 1 to identities - 1 places later.
    places = torch.randint(1, count // shots, (count,))
    partner = ((number // shots + places) * shots + torch.randint(shots, (count,))) % count
    waist = (height * (WAIST[0] + (WAIST[1] - WAIST[0]) * torch.rand(count, 1))).long()
    legs = changed[:, None] & (torch.arange(height) >= waist)  # [N, H]
    changed, partner, legs = (tensor.to(pictures.device) for tensor in (changed, partner, legs))
    return torch.where(legs[:, None, :, None], pictures[partner], pictures), changed


def _warp(config: Config) -> list[nn.Module]:
    if not config.rotation and not config.translation and config.zoom == 1 and not config.stretch:
        return []
    shift = (config.translation, config.translation)
    scale: tuple[float, ...] | None = None if config.zoom == 1 else (config.zoom, config.zoom)
    if config.stretch:
        scale = (config.zoom * (1 - config.stretch), config.zoom * (1 + config.stretch)) * 2  # of width, of height
    # A shift alone needs no interpolation, which would blur.
    resample = "bilinear" if config.rotation or scale else "nearest"
    # Where zoom is to leave no border, a rotation's corners are no black ones either.
    padding = "border" if scale else "zeros"
    return [RandomAffine(config.rotation, shift, scale, resample=resample, padding_mode=padding, p=1.0)]
