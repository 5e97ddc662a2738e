from __future__ import annotations

from pathlib import Path

import pytest

from training.data.dataset import Dataset
from training.data.reading import read


@pytest.fixture(scope="session")
def data(folder: Path) -> Dataset:
    return read(folder, "market1501")
