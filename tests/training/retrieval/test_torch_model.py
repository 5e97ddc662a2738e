"""Networks of PyTorch: a checkpoint, and one in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tests.training.retrieval.cells import HEIGHT, WIDTH
from training.config import Config
from training.data.dataset import Dataset
from training.data.images import to_crop
from training.network.model import Embedder, ReIDNet
from training.network.stored import load_checkpoint_model, read_checkpoint
from training.retrieval.embedding import embed_samples
from training.retrieval.protocol import evaluate
from training.retrieval.torch_model import NetworkModel, TorchModel


def test_a_checkpoint_is_evaluated_at_its_own_size(checkpoint_file: Path, data: Dataset, tmp_path: Path) -> None:
    found = evaluate(TorchModel(checkpoint_file), data, batch=4, save=tmp_path)
    assert found.size == (HEIGHT, WIDTH)
    saved = np.load(tmp_path / "query.npy")
    assert saved.shape == (10, found.dim)
    np.testing.assert_allclose(np.linalg.norm(saved, axis=1), 1, atol=1e-5)
    crops = np.stack([to_crop(sample.read(), HEIGHT, WIDTH) for sample in data.query])
    with torch.inference_mode():
        expected, _ = load_checkpoint_model(read_checkpoint(checkpoint_file))(torch.from_numpy(crops))
    np.testing.assert_allclose(saved, expected.numpy(), atol=1e-5)
    assert saved.std(axis=0).max() > 1e-4  # pictures differ in it


def test_a_network_in_memory_is_a_model_too(checkpoint_file: Path, data: Dataset) -> None:
    stored = TorchModel(checkpoint_file)
    live = NetworkModel(load_checkpoint_model(read_checkpoint(checkpoint_file)), HEIGHT, WIDTH, "cpu")
    assert (live.height, live.width) == (stored.height, stored.width) == (HEIGHT, WIDTH)
    np.testing.assert_array_equal(embed_samples(live, data.query), embed_samples(stored, data.query))


def test_evaluating_a_network_leaves_nothing_that_stops_its_training() -> None:
    torch.manual_seed(0)
    network = ReIDNet(Config(layers=(1, 1, 1, 1), base_width=8, height=HEIGHT, width=WIDTH), 3)
    NetworkModel(Embedder(network), HEIGHT, WIDTH).embed(np.zeros((2, HEIGHT, WIDTH, 3), np.uint8))
    network.train()
    network(torch.rand(4, 3, HEIGHT, WIDTH)).logits.sum().backward()
    assert all(parameter.grad is not None for parameter in network.classifier.parameters())
