from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.training.data.drawing import write_pictures
from training.data import dukemtmc
from training.data.dataset import DataError
from training.data.dukemtmc import DUKEMTMC


@pytest.fixture
def duke(tmp_path: Path) -> Path:
    """As the original is laid out: 0003 is a query's, 0005 only in the gallery."""
    parts = {
        "bounding_box_train": ("0001_c1_f0044158", "0001_c2_f0046182", "0002_c1_f0044160", "0002_c3_f0083712"),
        "query": ("0003_c1_f0044170", "0003_c8_f0095000"),
        "bounding_box_test": ("0003_c1_f0044171", "0003_c8_f0095001", "0005_c2_f0051341"),
    }
    for part, names in parts.items():
        write_pictures(tmp_path / part, [f"{name}.jpg" for name in names])
    return tmp_path


def test_names_tell_identity_and_camera(duke: Path) -> None:
    data = dukemtmc.read(duke)
    assert [(sample.identity, sample.camera) for sample in data.train] == [(1, 1), (1, 2), (2, 1), (2, 3)]
    assert [(sample.identity, sample.camera) for sample in data.query] == [(3, 1), (3, 8)]
    assert Counter(sample.identity for sample in data.gallery) == {3: 2, 5: 1}
    assert data.query[0].read() == (duke / "query" / "0003_c1_f0044170.jpg").read_bytes()
    assert (data.name, data.left_out) == (duke.name, 0)


def test_the_originals_counts() -> None:
    assert DUKEMTMC.counts == (16_522, 2_228, 17_661)
    assert sum(DUKEMTMC.counts) == 36_411  # the paper, section 4.1


def test_market_names_are_not_its_own(drawn: Path) -> None:
    with pytest.raises(DataError, match=r"holds no picture named like 0001_c2_f0046182\.jpg"):
        dukemtmc.read(drawn)
