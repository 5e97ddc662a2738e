from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.training.loop.tiny import build_batch, build_state, tiny
from training.loop.engine import NotFinite, Step, train_epoch, train_step
from training.loop.state import State


def grown(gradient: float) -> Callable[[Tensor], Tensor]:
    """A hook that puts a gradient in the place of every other."""
    return lambda found: torch.full_like(found, gradient)


def hooked(state: State, gradient: float) -> State:
    conv1 = state.learner.network.backbone.conv1.weight
    conv1.register_hook(grown(gradient))  # type: ignore[no-untyped-call]
    return state


def parameters(state: State) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in state.learner.parameters()]


def unchanged(state: State, before: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(before, state.learner.parameters(), strict=True))


def test_a_step_goes_down_the_gradient_of_the_sum() -> None:
    state, batch = build_state(tiny("optimizer=adam", "weight_decay=0")), build_batch()
    state.learner.train()
    before = parameters(state)
    step = train_step(state, batch)
    assert set(step.losses) == {"cross_entropy", "triplet"}
    assert 0 <= step.accuracy <= 1
    rate = state.optimizer.param_groups[0]["lr"]
    for old, parameter in zip(before, state.learner.parameters(), strict=True):
        if parameter.grad is None:
            assert torch.equal(old, parameter)
            continue
        # Adam's first step: the learning rate against the sign of the gradient, where that is not tiny.
        moved = parameter.grad.abs() > 1e-4
        torch.testing.assert_close((parameter - old)[moved], -rate * parameter.grad.sign()[moved], rtol=1e-2, atol=1e-6)


def test_a_gradient_that_is_not_finite_harms_nothing() -> None:
    state = hooked(build_state(tiny()), math.nan)
    before = parameters(state)
    with pytest.raises(NotFinite, match="gradient nan"):
        train_step(state, build_batch())
    assert unchanged(state, before)


def test_not_finite_names_the_batch() -> None:
    good, bad = build_batch(), build_batch(2)
    bad.pictures[0, 0, 0, 0] = math.nan
    seen: list[Step] = []
    with pytest.raises(NotFinite, match=r"batch 1: cross_entropy nan.*lower learning_rate"):
        train_epoch(build_state(tiny()), [1.0, 1.0, 1.0], [good, bad, good], seen.append)
    assert len(seen) == 1


@pytest.mark.parametrize("settings", [(), ("ema=0.5",)])
def test_weights_that_a_step_makes_infinite_are_named(settings: tuple[str, ...]) -> None:
    """The loss and the gradient of the only batch are finite: nothing else would see it."""
    state = build_state(tiny(*settings))
    with pytest.raises(NotFinite, match=r"\.weight is not finite after the last batch; start a new --run"):
        train_epoch(state, [1e50], [build_batch()], lambda _: None)


def test_a_statistic_that_overflows_is_named() -> None:
    state = build_state(tiny())
    state.learner.network.backbone.bn1.running_var = torch.full((8,), math.inf)
    with pytest.raises(NotFinite, match=r"backbone\.bn1\.running_var is not finite"):
        train_epoch(state, [], [], lambda _: None)


def test_the_factors_multiply_every_group(monkeypatch: pytest.MonkeyPatch) -> None:
    state = build_state(tiny("learning_rate=0.01"))
    rates: list[float] = []
    train_epoch(
        state,
        [0.5, 0.1],
        [build_batch(), build_batch()],
        lambda _step: rates.append(state.optimizer.param_groups[0]["lr"]),
    )
    assert rates == pytest.approx([0.005, 0.001])


@pytest.fixture
def scaled() -> State:
    """Training with fp16's gradient scale, in float32: what of it the CPU can do."""
    state = build_state(tiny())
    state.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    state.learner.train()
    return state


def test_the_gradient_scale_changes_no_step(scaled: State) -> None:
    plain, batch = build_state(tiny()), build_batch()
    plain.learner.train()
    assert train_step(plain, batch) == train_step(scaled, batch)
    # A power of two: to the bit.
    assert unchanged(scaled, parameters(plain))


def test_an_overflow_leaves_the_step_out_and_halves_the_scale(scaled: State) -> None:
    before = parameters(hooked(scaled, math.inf))
    scaled.mean = None
    for scale in (2.0, 1.0):
        train_step(scaled, build_batch())
        assert unchanged(scaled, before)
        assert scaled.scaler.get_scale() == scale
    with pytest.raises(NotFinite, match="gradient inf"):
        train_step(scaled, build_batch())
    assert unchanged(scaled, before)


def test_the_accuracy_is_of_those_who_have_a_class() -> None:
    state, batch = build_state(tiny("learning_rate=1e-9")), build_batch()
    state.learner.train()
    _, logits = state.learner(batch)
    labels = logits.argmax(dim=1)
    labels[0] = (labels[0] + 1) % logits.shape[1]
    labels[4:] = -1 - torch.arange(4)
    assert train_step(state, replace(batch, labels=labels)).accuracy == 0.75
