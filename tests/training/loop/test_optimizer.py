from __future__ import annotations

import pytest
import torch

from tests.training.loop.tiny import build_learner, tiny
from training.loop.optimizer import build_optimizer
from training.network.attention import SelfAttention


def test_what_is_fresh_learns_faster() -> None:
    learner = build_learner(tiny("learning_rate=0.01", "fresh_factor=3", "distillation=1"))
    pretrained = {name for name, _ in learner.network.backbone.named_parameters() if not name.startswith("layer4")}
    optimizer = build_optimizer(learner, pretrained)
    rates = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    for name, parameter in learner.named_parameters():
        if parameter.requires_grad:
            known = name.removeprefix("network.backbone.") in pretrained
            assert rates.pop(id(parameter)) == pytest.approx(0.01 if known else 0.03), name
    assert rates == {}


def test_alpha_may_learn_faster_and_does_not_decay() -> None:
    learner = build_learner(tiny("learning_rate=0.01", "fresh_factor=3", "alpha_factor=10", "weight_decay=0.1"))
    (group,) = (group for group in build_optimizer(learner, {"conv1.weight"}).param_groups if not group["weight_decay"])
    (alpha,) = group["params"]
    assert alpha is learner.network.attention.alpha
    assert group["lr"] == group["base_lr"] == pytest.approx(0.3)


def test_the_scores_may_learn_slower() -> None:
    learner = build_learner(tiny("learning_rate=0.01", "fresh_factor=3", "score_factor=0.1"))
    slow = [g for g in build_optimizer(learner, {"conv1.weight"}).param_groups if g["lr"] == pytest.approx(0.003)]
    attention = learner.network.attention
    assert isinstance(attention, SelfAttention)
    expected = [*attention.f.parameters(), *attention.g.parameters()]
    assert sorted(map(id, expected)) == sorted(id(p) for group in slow for p in group["params"])


def test_from_scratch_nothing_is_faster() -> None:
    groups = build_optimizer(build_learner(tiny("learning_rate=0.01", "fresh_factor=3")), frozenset()).param_groups
    assert all(group["lr"] == group["base_lr"] == pytest.approx(0.01) for group in groups)


def test_frozen_parameters_are_not_in_it() -> None:
    learner = build_learner(tiny("frozen_stages=5"))
    parameters = [id(p) for group in build_optimizer(learner, frozenset()).param_groups for p in group["params"]]
    fresh = [id(p) for name, p in learner.named_parameters() if p.requires_grad]
    assert sorted(parameters) == sorted(fresh)
    assert not any(id(p) in parameters for p in learner.network.backbone.parameters())


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_the_weight_decay_is_coupled_or_not(name: str) -> None:
    """One step where the loss has no gradient: Adam takes the decay for one, and AdamW only shrinks the weights."""
    learner = build_learner(tiny(f"optimizer={name}", "weight_decay=0.1", "learning_rate=0.01"))
    optimizer = build_optimizer(learner, frozenset())
    weight = learner.network.classifier.weight
    before = weight.detach().clone()
    for parameter in learner.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    expected = before - 0.01 * before.sign() if name == "adam" else before * (1 - 0.01 * 0.1)
    torch.testing.assert_close(weight.detach(), expected, rtol=1e-4, atol=1e-5)
