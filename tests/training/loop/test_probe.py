from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.training.loop.tiny import build_learner, tiny
from training.loop.probe import attention_figures
from training.network.model import Embedder

PICTURES = torch.randint(0, 256, (3, 3, 64, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", ["self", "spatial"])
def test_the_figures_are_equation_6s(kind: str) -> None:
    network = build_learner(tiny(f"attention={kind}")).network
    seen: list[tuple[Tensor, Tensor, Tensor]] = []
    handle = network.attention.register_forward_hook(lambda _module, args, output: seen.append((args[0], *output)))
    with torch.no_grad():
        Embedder(network)(PICTURES.permute(0, 2, 3, 1))
    handle.remove()
    (x, y, weights), pictures = seen[0], range(len(PICTURES))
    ratio = sum(float((y[n] - x[n]).norm() / x[n].norm()) for n in pictures) / len(PICTURES)
    rows = [row for picture in weights.tolist() for row in picture]
    entropy = sum(-weight * math.log(weight) for row in rows for weight in row) / len(rows)
    expected = {"attention_ratio": ratio, "attention_entropy": entropy} | ({"alpha": 0.5} if kind == "self" else {})
    assert attention_figures(network, PICTURES) == pytest.approx(expected, rel=1e-4)
    assert len(network.attention._forward_hooks) == 0


def test_without_attention_there_is_nothing_to_tell() -> None:
    assert attention_figures(build_learner(tiny("attention=none")).network, PICTURES) == {}


def test_looking_changes_no_statistics() -> None:
    network = build_learner(tiny()).train().network
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    attention_figures(network, PICTURES)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
