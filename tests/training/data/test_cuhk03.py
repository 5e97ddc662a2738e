from __future__ import annotations

import io
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat  # type: ignore[import-untyped]

from tests.training.data.drawing import write_pictures
from training.data import cuhk03
from training.data.cuhk03 import CUHK03, Crops
from training.data.dataset import DataError

PAIRS = (3, 2, 1, 1, 1)  # people of each camera pair
# Of a person's ten pictures, five a camera; most have fewer.
TAKEN = (1, 2, 6, 7)


def pixels(crops: str, pair: int, person: int, picture: int) -> NDArray[np.uint8]:
    """A picture [height, width, 3] that is no other's, and neither square nor symmetric."""
    seed = (crops == "labeled", pair, person, picture)
    return np.random.default_rng(seed).integers(0, 256, (6, 4, 3), np.uint8)


def write_original(path: Path) -> None:
    """`cuhk-03.mat` as MATLAB 7.3 writes it: cells are references, arrays transposed; empty cells hold their shape."""
    with h5py.File(path, "w") as file:
        empty = file.create_dataset("#refs#/empty", data=np.zeros(2, np.uint64))
        for crops in ("labeled", "detected"):
            pairs = file.create_dataset(crops, (1, len(PAIRS)), h5py.ref_dtype)
            for pair, people in enumerate(PAIRS, start=1):
                cells = file.create_dataset(f"#refs#/{crops}{pair}", (10, people), h5py.ref_dtype)
                pairs[0, pair - 1] = cells.ref
                for person in range(1, people + 1):
                    for picture in range(1, 11):
                        cell = empty
                        if picture in TAKEN:
                            name = f"#refs#/{crops}{pair}_{person}_{picture}"
                            cell = file.create_dataset(name, data=pixels(crops, pair, person, picture).T)
                        cells[picture - 1, person - 1] = cell.ref


def write_split(path: Path, **changes: Any) -> None:
    """The protocol's fields, MATLAB columns that count from 1. The last two people ask and answer, the others train."""
    names = [
        f"{pair}_{person:03d}_{1 + (picture > 5)}_{picture:02d}.png"
        for pair, people in enumerate(PAIRS, start=1)
        for person in range(1, people + 1)
        for picture in TAKEN
    ]
    labels = np.repeat(np.arange(1, 1 + sum(PAIRS)), len(TAKEN))
    first_test = 4 * (sum(PAIRS) - 2) + 1
    fields = {
        "train_idx": column(range(1, first_test)),
        "query_idx": column([first_test, first_test + 2, first_test + 4, first_test + 6]),
        "gallery_idx": column([first_test + 1, first_test + 3, first_test + 5, first_test + 7]),
        "labels": column(labels),
        "camId": column([int(name.split("_")[2]) for name in names]),
        "filelist": np.array(names, object)[:, None],
    }
    savemat(path, {key: value for key, value in (fields | changes).items() if value is not None})


def column(values: Sequence[int] | range | NDArray[np.int64]) -> NDArray[np.uint16]:
    return np.array(values, np.uint16)[:, None]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cuhk03")
    write_original(folder / "cuhk-03.mat")
    for crops in cuhk03.CROPS:
        write_split(folder / f"cuhk03_new_protocol_config_{crops}.mat")
    return folder


@pytest.fixture
def original(written: Path, tmp_path: Path) -> Path:
    """The original's three files, to be changed."""
    return shutil.copytree(written, tmp_path / "original")


@pytest.mark.parametrize("crops", cuhk03.CROPS)
def test_the_originals_pictures_are_found_upright_and_lossless(original: Path, crops: Crops) -> None:
    data = cuhk03.read(original, crops=crops)
    assert [(sample.identity, sample.camera) for sample in data.query] == [(7, 1), (7, 2), (8, 1), (8, 2)]
    assert len(data.train) == 4 * 6
    assert len(data.gallery) == 4
    assert data.train[5].name == "1_002_1_02.png"
    for sample in (data.train[5], data.train[-1], data.query[3], data.gallery[0]):
        pair, person, _, picture = (int(part) for part in sample.name[:-4].split("_"))
        with Image.open(io.BytesIO(sample.read())) as image:
            np.testing.assert_array_equal(np.asarray(image), pixels(crops, pair, person, picture))
        assert sample.size == 6 * 4 * 3


def test_the_released_folder_is_looked_into(original: Path) -> None:
    (original / "cuhk03_release").mkdir()
    (original / "cuhk-03.mat").rename(original / "cuhk03_release" / "cuhk-03.mat")
    assert len(cuhk03.read(original, crops="labeled").train) == 24


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"camId": None}, "config_labeled.mat has no camId"),
        ({"query_idx": column([40])}, "query_idx of the labeled split points beyond its 32 pictures"),
        ({"filelist": np.array(["1_001_1_03.png"] * 32, object)}, "has no picture 1_001_1_03.png"),  # an empty cell
        ({"labels": column([1] * 31)}, "32 names in filelist, 31 labels and 32 camId"),
        ({"camId": column([1] * 31)}, "32 names in filelist, 32 labels and 31 camId"),
        ({"filelist": np.array(["0_001_1_01.png"] * 32, object)}, "has no picture 0_001_1_01.png"),
        ({"filelist": np.array(["1_000_1_01.png"] * 32, object)}, "has no picture 1_000_1_01.png"),
        ({"filelist": np.array(["9_001_1_01.png"] * 32, object)}, "has no picture 9_001_1_01.png"),
        ({"filelist": np.array(["anna.png"] * 32, object)}, "names a picture 'anna.png', not like"),
    ],
)
def test_a_split_file_that_does_not_fit_is_refused(original: Path, changes: dict[str, Any], message: str) -> None:
    write_split(original / "cuhk03_new_protocol_config_labeled.mat", **changes)
    with pytest.raises(DataError, match=message):
        cuhk03.read(original, crops="labeled")


def test_missing_and_damaged_files_are_named(original: Path) -> None:
    split = original / "cuhk03_new_protocol_config_labeled.mat"
    split.write_bytes(b"rubbish")
    with pytest.raises(DataError, match=f"{split.name} is no readable"):
        cuhk03.read(original, crops="labeled")
    split.unlink()
    with pytest.raises(DataError, match=f"cuhk-03.mat and no {split.name}"):
        cuhk03.read(original, crops="labeled")
    with h5py.File(original / "cuhk-03.mat", "w"):
        pass
    with pytest.raises(DataError, match="holds no 'detected'"):
        cuhk03.read(original, crops="detected")
    (original / "cuhk-03.mat").write_bytes(b"rubbish")
    with pytest.raises(DataError, match=r"cuhk-03\.mat is no readable"):
        cuhk03.read(original, crops="detected")


def test_the_original_must_be_complete(original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    complete = CUHK03["labeled"]
    for counts, expected in (((24, 4, 4), complete.name), ((240, 4, 4), original.name)):
        monkeypatch.setitem(CUHK03, "labeled", type(complete)(complete.name, complete.pattern, "", counts))
        assert cuhk03.read(original, crops="labeled").name == expected
    monkeypatch.setitem(CUHK03, "labeled", type(complete)(complete.name, complete.pattern, "", (25, 4, 4)))
    with pytest.raises(DataError, match=r"holds 24 pictures, CUHK03 \(labeled\) has 25"):
        cuhk03.read(original, crops="labeled")


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """As CUHK03-NP is laid out."""
    for crops, shots in (("labeled", 2), ("detected", 3)):
        for part, people, pictures in (
            ("bounding_box_train", (1, 2), range(1, 1 + shots)),
            ("query", (3, 4), (1,)),
            ("bounding_box_test", (3, 4), range(2, 2 + shots)),
        ):
            names = [f"{person:04d}_c{camera}_{n}.png" for person in people for camera in (1, 2) for n in pictures]
            write_pictures(tmp_path / crops / part, names)
    return tmp_path


@pytest.mark.parametrize(("crops", "shots"), [("labeled", 2), ("detected", 3)])
def test_image_folders(folders: Path, crops: Crops, shots: int) -> None:
    for root in (folders, folders / crops):
        data = cuhk03.read(root, crops=crops)
        assert [(sample.identity, sample.camera) for sample in data.query] == [(3, 1), (3, 2), (4, 1), (4, 2)]
        assert (len(data.train), len(data.gallery)) == (4 * shots, 4 * shots)
        assert data.name == crops


def test_the_originals_counts() -> None:
    assert CUHK03["labeled"].counts == (7_368, 1_400, 5_328)
    assert CUHK03["detected"].counts == (7_365, 1_400, 5_332)
    assert sum(CUHK03["labeled"].counts) == 14_096  # the paper, section 4.1, which then splits the detected set
