from __future__ import annotations

from pathlib import Path

import pytest
import torch

from training.data import market1501, synthetic
from training.data.dataset import Dataset


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
