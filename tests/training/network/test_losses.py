"""The losses of section 3.3 against plain loops, in float64, gradients included."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from training.network.losses import batch_hard_triplet, euclidean_distances

PAIRED = [0, 0, 0, 1, 1, 2, 2, 3, 3, 3]
ALONE = [0, 0, 1, 2, 2, 2, 3]  # 1 and 3 have one picture


def loop_triplet(features: Tensor, labels: list[int], margin: float, soft: bool, anchors: range) -> Tensor:
    """Equation 7 as it is written: for every anchor, over all positives and all negatives."""
    terms = []
    for a in anchors:
        farthest, nearest = torch.zeros((), dtype=features.dtype), None
        for other, label in enumerate(labels):
            distance = (features[a] - features[other]).square().sum().clamp(min=1e-12).sqrt()
            if label == labels[a] and other != a and distance > farthest:
                farthest = distance
            if label != labels[a] and (nearest is None or distance < nearest):
                nearest = distance
        assert nearest is not None
        gap = farthest - nearest
        terms.append((1 + gap.exp()).log() if soft else (margin + gap).clamp(min=0))
    return torch.stack(terms).mean()


def with_gradient(loss: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
    return loss.detach(), torch.autograd.grad(loss, features)[0]


@pytest.mark.parametrize("anchors", [None, slice(2, 5)], ids=["all", "own"])
@pytest.mark.parametrize("labels", [PAIRED, ALONE], ids=["paired", "alone"])
@pytest.mark.parametrize("soft", [False, True], ids=["hinge", "soft"])
@pytest.mark.parametrize("seed", range(3))
def test_triplet_and_its_gradient_equal_the_loop(
    seed: int, soft: bool, labels: list[int], anchors: slice | None
) -> None:
    torch.manual_seed(seed)
    features = torch.randn(len(labels), 6, dtype=torch.float64, requires_grad=True)
    own = range(len(labels))[anchors or slice(None)]
    loop = with_gradient(loop_triplet(features, labels, 0.3, soft, own), features)
    ours = with_gradient(batch_hard_triplet(features, torch.tensor(labels), 0.3, soft, anchors), features)
    torch.testing.assert_close(ours, loop, rtol=1e-9, atol=1e-9)
    assert loop[1].abs().max() > 0


@pytest.mark.parametrize("soft", [False, True], ids=["hinge", "soft"])
def test_the_parts_of_a_gathered_batch_make_the_whole(soft: bool) -> None:
    labels = torch.tensor(PAIRED)
    features = torch.randn(10, 6, dtype=torch.float64, requires_grad=True)
    whole = with_gradient(batch_hard_triplet(features, labels, soft=soft), features)
    halves = [batch_hard_triplet(features, labels, soft=soft, anchors=half) for half in (slice(0, 5), slice(5, 10))]
    torch.testing.assert_close(with_gradient(torch.stack(halves).mean(), features), whole)


@pytest.mark.parametrize("soft", [False, True], ids=["hinge", "soft"])
def test_a_hard_margin_has_an_end_and_a_soft_one_has_none(soft: bool) -> None:
    features = torch.tensor([[0.0], [0.0], [9.0], [9.0]], requires_grad=True)
    loss = batch_hard_triplet(features, torch.tensor([0, 0, 1, 1]), margin=0.3, soft=soft)
    assert loss.item() == pytest.approx(math.log1p(math.exp(-9)) if soft else 0.0)


@pytest.mark.parametrize("soft", [False, True], ids=["hinge", "soft"])
@pytest.mark.parametrize("labels", [[0, 0, 1, 1], [0, 1, 2, 3], [0, 0, 0, 0]])
def test_equal_features_and_lonely_labels_have_a_finite_gradient(labels: list[int], soft: bool) -> None:
    features = torch.ones(4, 8, requires_grad=True)
    loss, gradient = with_gradient(batch_hard_triplet(features, torch.tensor(labels), soft=soft), features)
    assert loss.isfinite()
    assert gradient.isfinite().all()
    if set(labels) == {0}:
        assert loss == 0  # nothing stands against these anchors


def test_a_lonely_picture_is_at_no_distance_from_itself() -> None:
    features = 100 + torch.randn(2, 2048)  # rounding would leave about a unit in float32
    gap = (features[0] - features[1]).norm().item()
    assert batch_hard_triplet(features, torch.tensor([0, 1]), margin=100).item() == pytest.approx(100 - gap, abs=0.2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_distances_are_float32_under_mixed_precision(dtype: torch.dtype) -> None:
    features = torch.randn(4, 8).to(dtype)
    with torch.autocast("cpu", dtype=dtype):
        loss = batch_hard_triplet(features, torch.tensor([0, 0, 1, 1]))
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, batch_hard_triplet(features.float(), torch.tensor([0, 0, 1, 1])))


def test_euclidean_distances_equal_the_norm_of_the_difference() -> None:
    a, b = torch.randn(3, 5, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    expected = torch.tensor([[(x - y).norm().item() for y in b] for x in a], dtype=torch.float64)
    torch.testing.assert_close(euclidean_distances(a, b), expected)


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 1.0])
def test_pytorchs_smoothed_cross_entropy_is_our_reading_of_equation_9(epsilon: float) -> None:
    torch.manual_seed(0)
    logits = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    labels = [2, 0, 4, 2]
    terms = []
    for row, label in zip(logits, labels, strict=True):
        q = row.exp() / row.exp().sum()
        for n in range(5):
            target = (1 - epsilon) * (n == label) + epsilon / 5
            terms.append(-target * q[n].log() / 4)
    loop = with_gradient(torch.stack(terms).sum(), logits)
    theirs = functional.cross_entropy(logits, torch.tensor(labels), label_smoothing=epsilon)
    torch.testing.assert_close(with_gradient(theirs, logits), loop)
