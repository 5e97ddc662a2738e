"""What may follow the last feature map: nothing, spatial attention, or the paper's self-attention (Table 3).

The paper's equations 4, 5 and 6 mix channels, positions and images; the readings taken here follow its
sources, SAGAN (Zhang et al., 2018) and Li et al. (CVPR 2018). As in SAGAN's code, f, g and h have biases,
which equation 2 has not.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.config import Config

Scores = Literal["softmax", "sigmoid"]
PROJECTION_REDUCTION = 8  # section 3.2: D = D / 8


class Attention(nn.Module):
    """One kind of attention over the L = h * w positions of a feature map."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [N, D, h, w] -> (y [N, D, h, w], attention float32 [N, L, L]).

        Row j of the attention holds the weights with which position j attends to all of them; it sums to one.
        """
        raise NotImplementedError


class NoAttention(Attention):
    """y = x: every position attends to itself alone (Table 3, "resnet-50")."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        positions = x.shape[2] * x.shape[3]
        return x, torch.eye(positions, device=x.device).expand(x.shape[0], -1, -1)


class SpatialAttention(Attention):
    """y_i = L * a_i * x_i, one weight a_i a position (Table 3, "Spatial-attention").

    The paper has two sentences about this baseline: "a one-dimensional time-series convolution of each feature
    map", then the softmax. Our reading is the temporal attention of its lineage (Gao & Nevatia, 2018) with the
    positions, row by row, in the place of time: a 1x1 convolution to D/8 channels, a convolution of width 3 over
    the positions to one score, a ReLU behind each. The factor L keeps the scale of x, so that the mean over the map
    is the sum of the x_i weighted by a_i.

    Args:
        channels: D, the channels of the map.
        scores: what makes weights of the scores.
    """

    def __init__(self, channels: int, scores: Scores = "softmax") -> None:
        super().__init__()
        self.scores: Scores = scores
        hidden = channels // PROJECTION_REDUCTION
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.score = nn.Conv1d(hidden, 1, 3, padding=1)
        # From a bias about zero half of the positions would start below the ReLU, where no gradient comes.
        nn.init.ones_(self.score.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = torch.relu(self.reduce(x)).flatten(2)  # [N, D/8, L]
        with torch.autocast(x.device.type, enabled=False):
            scores = torch.relu(self.score(hidden.float()))  # [N, 1, L]
            weights = weigh(scores, self.scores)
        positions = weights.shape[2]
        return x * (positions * weights).view(-1, 1, *x.shape[2:]), weights.expand(-1, positions, -1)


class SelfAttention(Attention):
    """y = alpha * o + x (equations 2 to 6; Table 3, "Ours").

    Args:
        channels: D, the channels of the map.
        value_reduction: 1 maps the values by h: D -> D as the paper writes; 8 by D -> D/8 and back,
            as in SAGAN's final form, for a fifth of the parameters.
        scale: divide the scores by sqrt(D/8), as equation 1 does and equation 3 does not.
        scores: what makes weights of the scores (Table 6).
    """

    def __init__(
        self, channels: int, value_reduction: int = 1, scale: bool = False, scores: Scores = "softmax"
    ) -> None:
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
        self.scores: Scores = scores

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        f = torch.relu(self.f(x)).flatten(2)  # [N, D/8, L]
        g = torch.relu(self.g(x)).flatten(2)
        # In float32 under mixed precision too: the scores are sums of D/8 non-negative products.
        with torch.autocast(x.device.type, enabled=False):
            scores = g.float().transpose(1, 2) @ f.float() * self.scale  # [N, L(j), L(i)], equation 3
            attention = weigh(scores, self.scores)  # equation 4, over the positions i
        values = self.h(x).flatten(2)  # [N, D, L]
        o = (values @ attention.to(values.dtype).transpose(1, 2)).view_as(x)  # equation 5
        return self.alpha * o + x, attention


def weigh(scores: Tensor, kind: Scores) -> Tensor:
    """Scores [..., L] as weights [..., L] that sum to one over the last dimension (equation 4).

    The paper does not say what follows its sigmoid (Table 6). By itself it lets a row sum to L; as in the lineage's
    code, the row is divided by its L1 norm.
    """
    if kind == "softmax":
        return scores.softmax(dim=-1)
    return functional.normalize(scores.sigmoid(), p=1, dim=-1)


def build_attention(config: Config, channels: int) -> Attention:
    """The attention that `config` asks for, over a map of so many channels."""
    match config.attention:
        case "none":
            return NoAttention()
        case "spatial":
            return SpatialAttention(channels, config.attention_scores)
        case "self":
            return SelfAttention(channels, config.value_reduction, config.scale_scores, config.attention_scores)
