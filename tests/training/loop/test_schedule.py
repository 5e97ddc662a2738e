from __future__ import annotations

import math

import pytest

from training.config import build_config
from training.loop.schedule import learning_rate_factor


def test_cosine_after_a_linear_warm_up() -> None:
    factor = learning_rate_factor(build_config("smoke", overrides=["epochs=10", "warmup_epochs=2"]))
    assert factor(0) == pytest.approx(0.01)
    assert factor(1) == pytest.approx(0.505)
    assert factor(2) == pytest.approx(1)
    for epoch in (3, 6, 9.999):
        assert factor(epoch) == pytest.approx((1 + math.cos(math.pi * (epoch - 2) / 8)) / 2)


def test_the_papers_steps() -> None:
    """Section 4.2: a tenth every 100 of 800 epochs."""
    factor = learning_rate_factor(build_config("paper"))
    for epoch in (0, 50, 99.99, 100, 199.99, 200, 799.99):
        assert factor(epoch) == pytest.approx(0.1 ** int(epoch / 100))


def test_steps_count_from_the_end_of_the_warm_up() -> None:
    overrides = ["epochs=30", "warmup_epochs=1.5", "schedule=step", "step_epochs=10", "step_factor=0.5"]
    factor = learning_rate_factor(build_config("smoke", overrides=overrides))
    assert factor(0.75) == pytest.approx(0.505)
    assert [factor(epoch) for epoch in (1.5, 11.49, 11.5, 21.5)] == [1, 1, 0.5, 0.25]
