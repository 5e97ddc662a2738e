from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.training.retrieval.cells import HEIGHT, WIDTH, write_own_model
from training.config import Config
from training.data import market1501, synthetic
from training.data.dataset import Dataset
from training.network.model import ReIDNet


def pytest_configure() -> None:
    # Tiny networks: a second thread costs more than it gives, above all on a busy machine.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn data set in Market-1501 layout: 8 people to train on, 4 to test with. Copy it before you change it."""
    folder = tmp_path_factory.mktemp("drawn")
    synthetic.draw_market1501(folder, train_identities=8, test_identities=4, cameras=2, shots=2)
    return folder


@pytest.fixture(scope="session")
def data(drawn: Path) -> Dataset:
    return market1501.read(drawn)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """5 test identities x 2 cameras x 3 shots, of which 2 are in the gallery, and their hand-drawn boxes."""
    folder = tmp_path_factory.mktemp("asked")
    synthetic.draw_market1501(folder, train_identities=3, test_identities=5, cameras=2, shots=3, multi_query=True)
    return folder


@pytest.fixture(scope="session")
def own_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file of ours that embeds by a few pixels."""
    return write_own_model(tmp_path_factory.mktemp("own") / "own.onnx")


@pytest.fixture(scope="session")
def checkpoint_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a tiny network as it was drawn."""
    torch.manual_seed(0)
    config = Config(layers=(1, 1, 1, 1), base_width=8, height=HEIGHT, width=WIDTH)
    path = tmp_path_factory.mktemp("run") / "checkpoint.pt"
    state = {"config": config.to_dict(), "classes": 3, "model": ReIDNet(config, 3).state_dict(), "epoch": 60}
    state |= {"data": {"name": "drawn"}, "teacher": "none", "initialisation": "from scratch"}
    torch.save(state, path)
    return path
