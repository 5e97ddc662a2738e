"""The paper's section 3.3: batch-hard triplet loss; the cross-entropy with smoothed labels is PyTorch's."""

from __future__ import annotations

import torch
from torch import Tensor


def euclidean_distances(features: Tensor) -> Tensor:
    """All pairwise Euclidean distances of features [N, D], float32 [N, N], with a finite gradient at zero."""
    squared = features.float().square().sum(dim=1)
    product = features.float() @ features.float().T
    return (squared[:, None] + squared[None, :] - 2 * product).clamp(min=1e-12).sqrt()


def batch_hard_triplet(features: Tensor, labels: Tensor, margin: float = 0.3) -> Tensor:
    """Equation 7 with the hinge it means: mean over anchors of max(0, margin + farthest positive - nearest negative).

    Args:
        features: [N, D], not normalised.
        labels: int64 [N]; every label needs a second picture, and another label, in the batch.
    """
    with torch.autocast(features.device.type, enabled=False):
        distances = euclidean_distances(features)
        same = labels[:, None] == labels[None, :]
        hardest_positive = distances.masked_fill(~same, 0.0).amax(dim=1)
        hardest_negative = distances.masked_fill(same, torch.inf).amin(dim=1)
        return (margin + hardest_positive - hardest_negative).clamp(min=0).mean()
