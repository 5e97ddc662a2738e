from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.data.drawing import write_pictures
from training.data import flat
from training.data.dataset import DataError
from training.data.reading import find_layout, read

NAMES = [f"000{person}_c{camera}s1_000001_0{n}.jpg" for person in range(1, 7) for camera in (1, 2) for n in (1, 2)]


def test_names_tell_person_and_camera(tmp_path: Path) -> None:
    more = ["0007_c3_f0046182.jpg", "0007_c1_1.png", "-1_c1s1_000001_01.jpg", "0000_c2s1_000001_01.jpg", "cover.webp"]
    write_pictures(tmp_path, [*NAMES, *more, ".0009_c1s1_000001_01.jpg"])
    (tmp_path / "notes.txt").write_text("no picture")
    assert find_layout(tmp_path) == "flat"
    data = read(tmp_path)
    everything = (*data.train, *data.query, *data.gallery)
    assert sorted(sample.name for sample in everything) == sorted([*NAMES, *more[:2]])
    assert {sample.name[:4]: sample.identity for sample in everything} == {f"000{n}": n for n in range(1, 8)}
    assert {sample.camera for sample in everything if sample.name.startswith("0007")} == {1, 3}
    assert data.notes == (
        f"{tmp_path} is read as flat",
        "2 pictures of junk (-1) and distractors (0000) are not read",
        "1 pictures not named like 0002_c1s1_000451_03.jpg are not read, such as cover.webp",
        "files that are no .jpeg, .jpg, .png, .webp are not read (1), such as notes.txt",
    )


def test_other_names_tell_nothing(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["a.jpg", "b.jpg", NAMES[0]])
    with pytest.raises(DataError, match=r"nor pictures named like 0002_c1s1_000451_03\.jpg \(flat\); it holds 0001_c1"):
        read(tmp_path)
    with pytest.raises(DataError, match="is no folder of pictures of which most are named like"):
        flat.read(tmp_path)
    with pytest.raises(DataError, match="is no folder of pictures"):
        read(tmp_path / "a.jpg", "flat")


def test_a_number_that_is_too_long_is_named(tmp_path: Path) -> None:
    write_pictures(tmp_path, [*NAMES, f"0001_c{'1' * 20}s1_000001_01.jpg"])
    with pytest.raises(DataError, match="has a number of more than 9 digits"):
        read(tmp_path)
