"""ResNet-50 (He et al., "Deep Residual Learning for Image Recognition", CVPR 2016): the paper's Table 1.

Our own sixty lines, with torchvision's parameter names, because two things are choices here: where a
down-sampling block has its stride (the first 1x1 convolution in He's original, the 3x3 in torchvision's
v1.5) and the stride of the last stage.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

INSTANCE_NORM = "norm"
StridePlacement = Literal["1x1", "3x3"]
EXPANSION = 4


class InstanceNorm(nn.InstanceNorm2d):
    """[N, C, H, W] normalised picture by picture, then scaled and shifted; keeps the memory layout."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if torch.compiler.is_exporting() or not x.is_contiguous(memory_format=torch.channels_last):
            return y
        return y.contiguous(memory_format=torch.channels_last)


class Bottleneck(nn.Module):
    """1x1 reduce, 3x3, 1x1 expand, plus the input: [N, inputs, H, W] -> [N, 4 * channels, H/stride, W/stride].

    `norm` may be an instance norm of the sum.
    """

    def __init__(self, inputs: int, channels: int, stride: int, placement: StridePlacement) -> None:
        super().__init__()
        first, second = (stride, 1) if placement == "1x1" else (1, stride)
        outputs = EXPANSION * channels
        self.conv1 = nn.Conv2d(inputs, channels, 1, stride=first, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=second, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.norm: nn.Module = nn.Identity()
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        return self.relu(self.norm(x + shortcut))  # type: ignore[no-any-return]


class ResNet(nn.Module):
    """Stem and four stages: [N, 3, H, W] -> [N, 32 * width, h, w], h = H/32 at last stride 2, H/16 at 1.

    Args:
        layers: blocks of each stage; (3, 4, 6, 3) is ResNet-50.
        width: channels of the stem; 64 is ResNet-50.
        last_stride: stride of the last stage, 2 in the paper.
        placement: the convolution that carries a down-sampling block's stride.
        instance_norms: how many of stem, layer1 …, from the front, end in an instance norm before their last ReLU,
            which takes a camera's light, contrast and sharpness out (Pan et al., "Two at Once", ECCV 2018: IBN-b; there
            it is the stem's only norm, here the batch norm before it stays and is folded into its convolution).
    """

    def __init__(
        self,
        layers: tuple[int, int, int, int] = (3, 4, 6, 3),
        width: int = 64,
        last_stride: int = 2,
        placement: StridePlacement = "1x1",
        instance_norms: int = 0,
    ) -> None:
        super().__init__()
        self.channels = 8 * width * EXPANSION
        self.placement = placement
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.norm: nn.Module = InstanceNorm(width) if instance_norms else nn.Identity()
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        inputs = width
        for stage, (blocks, stride) in enumerate(zip(layers, (1, 2, 2, last_stride), strict=True)):
            channels = width * 2**stage
            first = Bottleneck(inputs, channels, stride, placement)
            inputs = EXPANSION * channels
            rest = [Bottleneck(inputs, channels, 1, placement) for _ in range(blocks - 1)]
            stack = [first, *rest]
            if stage + 1 < instance_norms:
                stack[-1].norm = InstanceNorm(inputs)
            self.add_module(f"layer{stage + 1}", nn.Sequential(*stack))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def stages(self) -> list[tuple[str, list[nn.Module]]]:
        """The stem and the four stages by name, in order: what can be frozen, logged or looked at."""
        stem: list[nn.Module] = [self.conv1, self.bn1, self.norm]
        return [("stem", stem)] + [(f"layer{n}", [self.get_submodule(f"layer{n}")]) for n in range(1, 5)]

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.norm(self.bn1(self.conv1(x)))))
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
        return x


def set_last_stride(network: ResNet, stride: int) -> None:
    """Change the last stage's stride in place; no parameter depends on it."""
    first = network.get_submodule("layer4.0")
    moved = "conv1" if network.placement == "1x1" else "conv2"
    for name in (moved, "downsample.0"):
        convolution = first.get_submodule(name)
        assert isinstance(convolution, nn.Conv2d)
        convolution.stride = (stride, stride)
