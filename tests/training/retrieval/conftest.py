from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.retrieval.cells import write_own_model
from training.data.dataset import Dataset
from training.data.reading import read
from training.data.synthetic import draw_market1501


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """5 test identities x 2 cameras x 3 shots, of which 2 are in the gallery, and their hand-drawn boxes."""
    folder = tmp_path_factory.mktemp("asked")
    draw_market1501(folder, train_identities=3, test_identities=5, cameras=2, shots=3, multi_query=True)
    return folder


@pytest.fixture(scope="session")
def data(folder: Path) -> Dataset:
    return read(folder, "market1501")


@pytest.fixture(scope="session")
def own_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_own_model(tmp_path_factory.mktemp("own") / "own.onnx")
