from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.data.drawing import write_pictures
from tests.training.data.test_cuhk03 import write_original, write_split
from tests.training.data.test_parts import zip_parts
from training.data.dataset import UNKNOWN_CAMERA, DataError
from training.data.reading import LAYOUTS, READERS, find_layout, read


def benchmark(root: Path, template: str) -> Path:
    """Three parts with names after a template of identity and camera."""
    for part, people in (("bounding_box_train", (1, 2)), ("query", (3,)), ("bounding_box_test", (3, 4))):
        write_pictures(root / part, [template.format(person, camera) for person in people for camera in (1, 2)])
    return root


def test_every_layout_has_a_reader() -> None:
    assert tuple(READERS) == LAYOUTS


@pytest.mark.parametrize(
    ("layout", "template", "folder"),
    [
        ("market1501", "{:04d}_c{}s1_000451_03.jpg", "here"),
        ("dukemtmc", "{:04d}_c{}_f0046182.jpg", "here"),
        ("cuhk03-labeled", "{:04d}_c{}_1.png", "labeled"),
        ("cuhk03-detected", "{:04d}_c{}_1.png", "detected"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_benchmarks_are_told_by_their_names(
    tmp_path: Path, layout: str, template: str, folder: str, zipped: bool
) -> None:
    root = benchmark(tmp_path / "unpacked" / folder, template)
    if zipped:
        target = tmp_path / "zips" / folder
        target.mkdir(parents=True)
        zip_parts(root, target)
        root = target
    data = read(root)
    assert (len(data.train), len(data.query), len(data.gallery)) == (4, 2, 4)
    assert data.notes == (f"{root} is read as {layout}",)
    if layout.startswith("cuhk03"):
        assert find_layout(root.parent) == layout


def test_cuhk03_is_two_sets(tmp_path: Path) -> None:
    for crops in ("labeled", "detected"):
        benchmark(tmp_path / crops, "{:04d}_c{}_1.png")
    benchmark(tmp_path / "np", "{:04d}_c{}_1.png")
    for root in (tmp_path, tmp_path / "np"):
        with pytest.raises(DataError, match="say --layout cuhk03-labeled or --layout cuhk03-detected"):
            read(root)
    assert read(tmp_path, "cuhk03-detected").name == "detected"
    assert read(tmp_path / "np", "cuhk03-labeled").notes == ()


def test_the_original_of_cuhk03_is_two_sets(tmp_path: Path) -> None:
    write_original(tmp_path / "cuhk-03.mat")
    write_split(tmp_path / "cuhk03_new_protocol_config_labeled.mat")
    with pytest.raises(DataError, match="say --layout cuhk03-labeled"):
        read(tmp_path)
    assert len(read(tmp_path, "cuhk03-labeled").train) == 24


def test_ones_own_folders_and_tables(tmp_path: Path) -> None:
    names = [f"{person}/{n}.jpg" for person in "abcd" for n in range(2)]
    write_pictures(tmp_path / "flat", names)
    assert find_layout(tmp_path / "flat") == "folders"
    write_pictures(tmp_path / "parts", [f"train/{name}" for name in names])
    assert find_layout(tmp_path / "parts") == "folders"
    (tmp_path / "flat" / "all.csv").write_text("path,identity\n" + "\n".join(f"{name},{name[0]}" for name in names))
    with pytest.raises(DataError, match=r"flat holds all\.csv, which tells who is .* or say --layout folders"):
        read(tmp_path / "flat")
    by_table, by_folder = read(tmp_path / "flat" / "all.csv"), read(tmp_path / "flat", "folders")
    assert by_table.notes == (f"{tmp_path / 'flat' / 'all.csv'} is read as csv",)
    assert [sample.name for sample in by_table.train] == [sample.name for sample in by_folder.train]


def test_cameras_can_be_ignored(tmp_path: Path) -> None:
    root = benchmark(tmp_path, "{:04d}_c1s1_00045{}_03.jpg")
    with pytest.raises(DataError, match=r"every match of query 0003_c1s1_000451_03.jpg shares its camera \(1\)"):
        read(root)
    data = read(root, ignore_cameras=True)
    assert {sample.camera for sample in (*data.train, *data.query, *data.gallery)} == {UNKNOWN_CAMERA}


def test_a_wrong_path_is_told_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere does not exist"):
        read(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"bounding_box_train, query, bounding_box_test .* it holds nothing$"):
        read(tmp_path)
    benchmark(tmp_path / "Market-1501-v15.09.15", "{:04d}_c{}s1_000451_03.jpg")
    write_pictures(tmp_path, [f"{n}.jpg" for n in range(5)])
    with pytest.raises(DataError, match=r"it holds 0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg, …$"):
        read(tmp_path)
    with pytest.raises(DataError, match=r"0.jpg is a file, but no .csv"):
        read(tmp_path / "0.jpg")
    (tmp_path / "half" / "bounding_box_train").mkdir(parents=True)
    with pytest.raises(DataError, match="bounding_box_train holds no picture named like"):
        read(tmp_path / "half")
