from __future__ import annotations

import os
from pathlib import Path

import pytest

from training.data import market1501
from training.data.summary import PAPER, count


@pytest.mark.parametrize(
    ("name", "identity", "camera"),
    [
        ("0002_c1s1_000451_03.jpg", 2, 1),
        ("-1_c6s3_000451_03.jpg", -1, 6),
        ("0000_c10s1_000451_03.jpeg", 0, 10),
        ("1488_c1s6_023021_00.jpg.jpg", 1488, 1),  # six queries of the original are called so
    ],
)
def test_names(name: str, identity: int, camera: int) -> None:
    match = market1501.MARKET1501.pattern.match(name)
    assert match is not None
    assert (int(match[1]), int(match[2])) == (identity, camera)


@pytest.mark.parametrize("name", ["0001_c2_f0046182.jpg", "0001_c1_1.png", "Thumbs.db", "12_c1s1_000451_03.jpg"])
def test_other_names_are_not_its_own(name: str) -> None:
    assert market1501.MARKET1501.pattern.match(name) is None


def test_the_original_is_the_papers() -> None:
    path = os.environ.get("RESIGHT_MARKET1501")
    if not path:
        pytest.skip("RESIGHT_MARKET1501 does not say where Market-1501 is")
    data = market1501.read(Path(path))
    assert (data.name, data.notes, data.left_out) == ("Market-1501", (), 0)
    assert count(data) == PAPER["Market-1501"]
    assert sum(sample.identity == 0 for sample in data.gallery) == 2_798
    assert sum(sample.identity == -1 for sample in data.gallery) == 3_819
