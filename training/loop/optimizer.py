"""The optimiser over the two kinds of parameters: what was pretrained, and what starts fresh."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from training.loop.learner import Learner


def build_optimizer(learner: Learner, pretrained: Collection[str]) -> torch.optim.Optimizer:
    """Adam (the paper's, weight decay added to the gradient) or AdamW (weight decay apart from it).

    Args:
        pretrained: names within the backbone; everything else learns `fresh_factor` times as fast.
    """
    config = learner.config
    groups: dict[bool, list[Tensor]] = {True: [], False: []}
    for name, parameter in learner.named_parameters():
        if parameter.requires_grad:
            groups[name.removeprefix("network.backbone.") in pretrained].append(parameter)
    # From scratch everything is fresh: then there is nothing to be faster than.
    fresh_rate = config.learning_rate * (config.fresh_factor if pretrained else 1.0)
    rates = {True: config.learning_rate, False: fresh_rate}
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(
        [
            {"params": parameters, "lr": rates[known], "base_lr": rates[known]}
            for known, parameters in groups.items()
            if parameters
        ],
        weight_decay=config.weight_decay,
        fused=True,
    )
