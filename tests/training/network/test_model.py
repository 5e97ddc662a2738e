from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from training.config import Config, build_config
from training.modelfile.graph import export_graph
from training.network.attention import SelfAttention
from training.network.model import Embedder, ReIDNet

SMOKE = build_config("smoke")
POSITIONS = 8  # of SMOKE's map, 4 x 2
KINDS = {
    "none": replace(SMOKE, attention="none", bnneck=False),
    "spatial": replace(SMOKE, attention="spatial", embedding_dim=24),
    "sigmoid": replace(SMOKE, attention_scores="sigmoid"),
}


def test_embedder_normalises_inside_and_gives_unit_vectors() -> None:
    embedder = Embedder(ReIDNet(SMOKE, 4)).eval()
    crops = torch.randint(0, 256, (3, SMOKE.height, SMOKE.width, 3), dtype=torch.uint8)
    with torch.inference_mode():
        embedding, attention = embedder(crops)
        scaled = crops.permute(0, 3, 1, 2).float() / 255
        mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
        std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
        expected = embedder.network((scaled - mean) / std).embedding
    torch.testing.assert_close(embedding, functional.normalize(expected), rtol=1e-4, atol=1e-5)
    assert attention.shape == (3, POSITIONS, POSITIONS)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_same_shapes(kind: str) -> None:
    network = ReIDNet(KINDS[kind], 5).eval()
    features = network(torch.randn(2, 3, 64, 32))
    dim = KINDS[kind].embedding_dim or 512
    assert network.embedding_dim == dim
    assert features.pooled.shape == features.embedding.shape == (2, dim)
    assert features.logits.shape == (2, 5)
    assert features.attention.shape == (2, POSITIONS, POSITIONS)
    torch.testing.assert_close(features.attention.sum(dim=2), torch.ones(2, POSITIONS))


@pytest.mark.parametrize("bnneck", [False, True])
def test_the_projection_lies_between_the_mean_and_everything_else(bnneck: bool) -> None:
    network = ReIDNet(replace(SMOKE, embedding_dim=24, bnneck=bnneck), 5).eval()
    maps: list[Tensor] = []
    network.attention.register_forward_hook(lambda _module, _inputs, output: maps.append(output[0]))
    features = network(torch.randn(2, 3, 64, 32))
    weight = network.get_submodule("projection").get_parameter("weight")
    assert weight.shape == (24, 512)
    torch.testing.assert_close(features.pooled, maps[0].mean(dim=(2, 3)) @ weight.T)
    torch.testing.assert_close(features.embedding, network.bnneck(features.pooled))
    torch.testing.assert_close(features.logits, network.classifier(features.embedding))
    functional.cross_entropy(features.logits, torch.tensor([0, 1])).backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    assert weight.grad.abs().max() > 0


@pytest.mark.parametrize("embedding_dim", [0, 24])
def test_what_follows_the_map_is_float32_under_mixed_precision(embedding_dim: int) -> None:
    network = ReIDNet(replace(SMOKE, embedding_dim=embedding_dim), 4).train()
    seen: list[torch.dtype] = []
    for module in (network.projection, network.bnneck, network.classifier):
        module.register_forward_hook(lambda _module, inputs, output: seen.extend((inputs[0].dtype, output.dtype)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = network(torch.randn(4, 3, 64, 32))
    assert seen == [torch.float32] * 6
    assert features.pooled.dtype == features.logits.dtype == torch.float32


def test_bnneck_and_bias() -> None:
    assert ReIDNet(SMOKE, 4).classifier.bias is None
    plain = ReIDNet(replace(SMOKE, bnneck=False), 4)
    assert plain.classifier.bias is not None
    x = torch.randn(2, 3, 64, 32)
    features = plain.eval()(x)
    torch.testing.assert_close(features.embedding, features.pooled)


def taught(config: Config) -> Embedder:
    """An embedder whose attention does something, on statistics that are not those of a new batch norm."""
    torch.manual_seed(0)
    network = ReIDNet(config, 4).train()
    if isinstance(network.attention, SelfAttention):
        network.attention.alpha.data.fill_(0.5)
    with torch.no_grad():
        network(torch.randn(8, 3, config.height, config.width))
    return Embedder(network).eval()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_exported(kind: str, tmp_path: Path) -> None:
    config = replace(KINDS[kind], base_width=8)
    embedder, path = taught(config), tmp_path / "model.onnx"
    export_graph(embedder, config, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        crops = np.random.default_rng(0).integers(0, 256, (batch, config.height, config.width, 3), np.uint8)
        with torch.inference_mode():
            expected = embedder(torch.from_numpy(crops))
        for ours, wanted in zip(session.run(["embedding", "attention"], {"crops": crops}), expected, strict=True):
            torch.testing.assert_close(torch.from_numpy(ours), wanted, rtol=1e-3, atol=1e-4)
