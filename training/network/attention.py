"""The self-attention model of the paper's section 3.2, on the last feature map.

The paper's equations have index slips (4, 5 and 6 mix channels, positions and images); the readings
taken here follow its sources, SAGAN (Zhang et al., 2018) and Li et al. (CVPR 2018). As in SAGAN's code,
f, g and h have biases, which equation 2 has not.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

PROJECTION_REDUCTION = 8  # section 3.2: D = D / 8


class SelfAttention(nn.Module):
    """y = alpha * o + x over the L = h * w positions of a feature map (equations 2 to 6).

    Args:
        channels: D, the channels of the map.
        value_reduction: 1 maps the values by h: D -> D as the paper writes; 8 by D -> D/8 and back,
            as in SAGAN's final form, for a fifth of the parameters.
        scale: divide the scores by sqrt(D/8), as equation 1 does and equation 3 does not.
    """

    def __init__(self, channels: int, value_reduction: int = 1, scale: bool = False) -> None:
        super().__init__()
        projection = channels // PROJECTION_REDUCTION
        self.f = nn.Conv2d(channels, projection, 1)
        self.g = nn.Conv2d(channels, projection, 1)
        self.h: nn.Module = nn.Conv2d(channels, channels, 1)
        if value_reduction != 1:
            inner = channels // value_reduction
            self.h = nn.Sequential(nn.Conv2d(channels, inner, 1), nn.Conv2d(inner, channels, 1))
        self.alpha = nn.Parameter(torch.zeros(()))  # equation 6: from zero, so that training starts from x
        self.scale = projection**-0.5 if scale else 1.0

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [N, D, h, w] -> (y [N, D, h, w], attention [N, L, L], row j = what position j attends to)."""
        f = torch.relu(self.f(x)).flatten(2)  # [N, D/8, L]
        g = torch.relu(self.g(x)).flatten(2)
        # In float32 under mixed precision too: the scores are sums of D/8 non-negative products.
        with torch.autocast(x.device.type, enabled=False):
            scores = g.float().transpose(1, 2) @ f.float() * self.scale  # [N, L(j), L(i)], equation 3
            attention = scores.softmax(dim=-1)  # equation 4, over the positions i
        values = self.h(x).flatten(2)  # [N, D, L]
        o = (values @ attention.to(values.dtype).transpose(1, 2)).view_as(x)  # equation 5
        return self.alpha * o + x, attention
