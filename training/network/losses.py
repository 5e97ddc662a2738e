"""The paper's section 3.3: the batch-hard triplet loss (equation 7), and how its cross-entropy is read.

Equations 8 and 9 are `torch.nn.functional.cross_entropy(..., label_smoothing=0.1)`. Equation 9 as printed smooths
the prediction, log((1 - e) q + e / N); the paper's source (Szegedy et al., 2016) smooths the target instead, to
(1 - e) p + e / N over the N classes, and this is what PyTorch computes and what is meant here.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def batch_hard_triplet(
    features: Tensor, labels: Tensor, margin: float = 0.3, soft: bool = False, anchors: slice | None = None
) -> Tensor:
    """Equation 7 with the hinge it means: mean over anchors of max(0, margin + farthest positive - nearest negative).

    The distances are Euclidean, computed in float32 at least. An anchor whose label has no second picture is its own
    farthest positive, at distance zero; one that no other label stands against adds nothing.

    Args:
        features: [N, D], not normalised.
        labels: int64 [N].
        margin: in the unit of the distances.
        soft: log(1 + exp(farthest positive - nearest negative)) in place of the hinge (Hermans et al., 2017); then
            there is no margin.
        anchors: the rows that are anchors, where the others were gathered from other processes; None: all.
    """
    rows = slice(None) if anchors is None else anchors
    with torch.autocast(features.device.type, enabled=False):
        distances = euclidean_distances(features[rows], features)  # [A, N]
        same = labels[rows, None] == labels[None, :]
        itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)[rows]
        # Rounding leaves an anchor a little away from itself, so the zero is put there.
        hardest_positive = distances.masked_fill(~same | itself, 0.0).amax(dim=1)
        hardest_negative = distances.masked_fill(same, torch.inf).amin(dim=1)
        gap = hardest_positive - hardest_negative
        return (functional.softplus(gap) if soft else (margin + gap).clamp(min=0)).mean()


def euclidean_distances(a: Tensor, b: Tensor) -> Tensor:
    """Between the rows of a [A, D] and b [B, D]: [A, B], in float32 at least, with a finite gradient at zero."""
    precise = torch.promote_types(a.dtype, torch.float32)
    a, b = a.to(precise), b.to(precise)
    squared = a.square().sum(dim=1)[:, None] + b.square().sum(dim=1)[None, :] - 2 * (a @ b.T)
    return squared.clamp(min=1e-12).sqrt()
