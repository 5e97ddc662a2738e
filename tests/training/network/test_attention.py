"""The three kinds of attention against the equations, position by position."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from typing import get_args

import pytest
import torch
from torch import Tensor

from training.config import build_config
from training.network.attention import (
    Attention,
    NoAttention,
    Scores,
    SelfAttention,
    SpatialAttention,
    build_attention,
    weigh,
)

SMOKE = build_config("smoke")
SCORES = get_args(Scores)
KINDS: dict[str, Attention] = {
    "none": NoAttention(),
    **{f"spatial {scores}": SpatialAttention(32, scores) for scores in SCORES},
    **{f"self {scores}": SelfAttention(32, scores=scores) for scores in SCORES},
}
HEIGHT, WIDTH = 3, 2
POSITIONS = list(product(range(HEIGHT), range(WIDTH)))


def loop_weights(scores: list[float], kind: Scores) -> Tensor:
    """Equation 4, or the sigmoid in its place, over the positions."""
    gates = [math.exp(e) if kind == "softmax" else 1 / (1 + math.exp(-e)) for e in scores]
    return torch.tensor([gate / sum(gates) for gate in gates])


@pytest.mark.parametrize("scores", SCORES)
@pytest.mark.parametrize(("value_reduction", "scale"), [(1, False), (1, True), (8, False)])
def test_self_attention_equals_the_equations_written_as_loops(
    value_reduction: int, scale: bool, scores: Scores
) -> None:
    torch.manual_seed(0)
    attention = SelfAttention(16, value_reduction, scale, scores)
    attention.alpha.data.fill_(0.7)
    x = torch.randn(2, 16, HEIGHT, WIDTH)
    with torch.no_grad():
        y, weights = attention(x)
        f, g, h = attention.f(x), attention.g(x), attention.h(x)  # equation 2
    for n in range(2):
        for j, (row, column) in enumerate(POSITIONS):
            at_j = g[n, :, row, column].tolist()
            e = [
                sum(max(a, 0) * max(b, 0) for a, b in zip(f[n, :, p, q].tolist(), at_j, strict=True))
                for p, q in POSITIONS
            ]  # equation 3
            s = loop_weights([score / math.sqrt(2) if scale else score for score in e], scores)  # D / 8 = 2
            o = sum((s[i] * h[n, :, p, q] for i, (p, q) in enumerate(POSITIONS)), start=torch.zeros(16))  # equation 5
            torch.testing.assert_close(weights[n, j], s, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(y[n, :, row, column], 0.7 * o + x[n, :, row, column], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scores", SCORES)
def test_spatial_attention_equals_a_loop_over_the_positions(scores: Scores) -> None:
    torch.manual_seed(0)
    attention = SpatialAttention(16, scores)
    x = torch.randn(2, 16, HEIGHT, WIDTH)
    with torch.no_grad():
        y, weights = attention(x)
    reduce = attention.reduce.weight.detach()[:, :, 0, 0]  # [2, 16]
    kernel, bias, reduce_bias = attention.score.weight.detach()[0], attention.score.bias, attention.reduce.bias
    assert bias is not None
    assert reduce_bias is not None
    for n in range(2):
        hidden = [[max((reduce[k] @ x[n, :, p, q] + reduce_bias[k]).item(), 0) for k in range(2)] for p, q in POSITIONS]
        e = []
        for i in range(len(POSITIONS)):
            score = bias.item()
            for tap, neighbour in enumerate((i - 1, i, i + 1)):
                if 0 <= neighbour < len(POSITIONS):
                    score += sum(kernel[k, tap].item() * hidden[neighbour][k] for k in range(2))
            e.append(max(score, 0))
        a = loop_weights(e, scores)
        for i, (p, q) in enumerate(POSITIONS):
            torch.testing.assert_close(weights[n, i], a, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(y[n, :, p, q], len(POSITIONS) * a[i] * x[n, :, p, q], rtol=1e-5, atol=1e-6)


def test_no_attention_is_the_identity() -> None:
    x = torch.randn(2, 32, HEIGHT, WIDTH)
    y, weights = NoAttention()(x)
    assert y is x
    assert torch.equal(weights, torch.eye(6).expand(2, 6, 6))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1.0, 30.0])
def test_rows_are_weights_that_sum_to_one(kind: str, size: float) -> None:
    x = size * torch.randn(3, 32, 4, 2)
    y, weights = KINDS[kind](x)
    assert y.shape == x.shape
    assert weights.shape == (3, 8, 8)
    assert weights.min() >= 0
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(3, 8))


@pytest.mark.parametrize("kind", SCORES)
def test_extreme_scores_are_weighed_without_an_overflow(kind: Scores) -> None:
    scores = torch.tensor([[0.0, 1e4, 2e4], [0.0, 0.0, 0.0]], requires_grad=True)
    weights = weigh(scores, kind)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2))
    torch.testing.assert_close(weights[1], torch.full((3,), 1 / 3))
    weights.square().sum().backward()  # type: ignore[no-untyped-call]
    assert scores.grad is not None
    assert scores.grad.isfinite().all()


@pytest.mark.parametrize("scores", SCORES)
@pytest.mark.parametrize("value_reduction", [1, 8])
def test_self_attention_starts_as_the_identity_and_learns(value_reduction: int, scores: Scores) -> None:
    attention = SelfAttention(64, value_reduction, scores=scores)
    x = torch.randn(2, 64, 4, 2)
    y, _ = attention(x)
    assert torch.equal(y, x)
    y.square().sum().backward()
    assert attention.alpha.grad is not None
    assert attention.alpha.grad.abs() > 0


@pytest.mark.parametrize(("value_reduction", "values"), [(1, 2048 * 2048), (8, 2 * 2048 * 256)])
def test_f_and_g_project_to_an_eighth(value_reduction: int, values: int) -> None:
    with torch.device("meta"):
        attention = SelfAttention(2048, value_reduction)
    assert attention.f.weight.shape == attention.g.weight.shape == (256, 2048, 1, 1)
    assert sum(p.numel() for p in attention.h.parameters() if p.dim() > 1) == values


@pytest.mark.parametrize("seed", range(5))
def test_spatial_attention_learns_at_every_position_from_the_start(seed: int) -> None:
    torch.manual_seed(seed)
    attention = SpatialAttention(64)
    scores: list[Tensor] = []
    attention.score.register_forward_hook(lambda _module, _inputs, output: scores.append(output))
    y, _ = attention(torch.rand(4, 64, 8, 4))  # a map is not negative: its last layer is a ReLU
    assert scores[0].min() > 0
    scores[0].retain_grad()
    y.square().sum().backward()
    assert scores[0].grad is not None
    assert scores[0].grad.abs().min() > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_scores_stay_float32_under_mixed_precision(kind: str, dtype: torch.dtype) -> None:
    with torch.autocast("cpu", dtype=dtype):
        _, weights = KINDS[kind](torch.randn(1, 32, 4, 2))
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(1, 8), rtol=0, atol=1e-6)


def test_scores_that_overflow_half_precision_do_not() -> None:
    attention = SelfAttention(64)
    x = torch.full((1, 64, 4, 2), 100.0)
    with torch.no_grad():
        for projection in (attention.f, attention.g):
            projection.weight.fill_(1.0)
    with torch.autocast("cpu", dtype=torch.float16):
        _, weights = attention(x)  # a score is 8 * 6400 * 6400, far above 65504
    torch.testing.assert_close(weights, torch.full((1, 8, 8), 1 / 8))


def test_the_settings_choose_the_kind() -> None:
    assert isinstance(build_attention(replace(SMOKE, attention="none"), 32), NoAttention)
    spatial = build_attention(replace(SMOKE, attention="spatial", attention_scores="sigmoid"), 32)
    assert isinstance(spatial, SpatialAttention)
    assert spatial.scores == "sigmoid"
    own = build_attention(replace(SMOKE, attention_scores="sigmoid", scale_scores=True, value_reduction=8), 32)
    assert isinstance(own, SelfAttention)
    assert (own.scores, own.scale, isinstance(own.h, torch.nn.Sequential)) == ("sigmoid", 0.5, True)
