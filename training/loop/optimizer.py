"""The optimiser over the kinds of parameters: what was pretrained, what starts fresh, and the attention's parts."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from training.loop.learner import Learner

ALPHA = "network.attention.alpha"
SCORES = ("network.attention.f.", "network.attention.g.")


def build_optimizer(learner: Learner, pretrained: Collection[str]) -> torch.optim.Optimizer:
    """Adam (the paper's, weight decay added to the gradient) or AdamW (weight decay apart from it).

    Args:
        pretrained: names within the backbone; everything else learns `fresh_factor` times as fast, and alpha, one
            number that starts from zero, `alpha_factor` times as fast as that and without weight decay; f and g,
            which make the attention's scores, `score_factor` times as fast.
    """
    config = learner.config
    # From scratch everything is fresh: then there is nothing to be faster than.
    fresh_rate = config.learning_rate * (config.fresh_factor if pretrained else 1.0)
    rates = {
        "known": config.learning_rate,
        "fresh": fresh_rate,
        "alpha": fresh_rate * config.alpha_factor,
        "scores": fresh_rate * config.score_factor,
    }
    groups: dict[str, list[Tensor]] = {kind: [] for kind in rates}
    for name, parameter in learner.named_parameters():
        if not parameter.requires_grad:
            continue
        groups[_kind(name, pretrained)].append(parameter)
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(
        [
            {"params": parameters, "lr": rates[name], "base_lr": rates[name]}
            | ({"weight_decay": 0.0} if name == "alpha" else {})
            for name, parameters in groups.items()
            if parameters
        ],
        weight_decay=config.weight_decay,
        fused=True,
    )


def _kind(name: str, pretrained: Collection[str]) -> str:
    if name == ALPHA:
        return "alpha"
    if name.startswith(SCORES):
        return "scores"
    return "known" if name.removeprefix("network.backbone.") in pretrained else "fresh"
