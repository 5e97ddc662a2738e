from __future__ import annotations

import numpy as np
import pytest
import torch

from training.config import build_config
from training.figures.activations import NAMES, look
from training.network.model import Embedder, ReIDNet


@pytest.mark.parametrize("attention", ["self", "spatial", "none"])
def test_maps_are_those_of_a_pass_by_hand(attention: str) -> None:
    torch.manual_seed(0)
    config = build_config("smoke", overrides=["height=64", "width=32", "base_width=8", f"attention={attention}"])
    embedder = Embedder(ReIDNet(config, 4)).eval()
    crops = np.random.default_rng(0).integers(0, 256, (2, 64, 32, 3), np.uint8)
    seen = look(embedder, crops)

    backbone = embedder.network.backbone
    with torch.inference_mode():
        x = (torch.from_numpy(crops).permute(0, 3, 1, 2).float() - embedder.mean) / embedder.std
        x = torch.relu(backbone.bn1(backbone.conv1(x)))
        expected = {"conv1": x.clone()}
        x = backbone.maxpool(x)
        for number, name in enumerate(NAMES[1:], start=1):
            x = backbone.get_submodule(f"layer{number}")(x)
            expected[name] = x.clone()
        _, weights = embedder(torch.from_numpy(crops))
    assert list(seen.stages) == list(NAMES)
    for name, maps in expected.items():
        np.testing.assert_allclose(seen.stages[name], maps.numpy(), atol=1e-5)
    np.testing.assert_allclose(seen.attention, weights.numpy(), atol=1e-6)
    assert seen.shape == (4, 2)
    assert seen.attention.shape == (2, 8, 8)


def test_looking_leaves_no_hooks() -> None:
    embedder = Embedder(ReIDNet(build_config("smoke", overrides=["base_width=8"]), 4)).eval()
    look(embedder, np.zeros((1, 64, 32, 3), np.uint8))
    assert not any(module._forward_hooks for module in embedder.modules())
