from __future__ import annotations

import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from training.data import market1501, parts
from training.data.dataset import DataError
from training.data.images import read_crop
from training.data.market1501 import MARKET1501


def copy_renamed(source: Path, target: Path, rename: dict[str, str]) -> None:
    """Copy a drawn data set, with the beginning of some names changed."""
    for path in source.rglob("*.jpg"):
        name = next(
            (new + path.name[len(old) :] for old, new in rename.items() if path.name.startswith(old)), path.name
        )
        (target / path.parent.name).mkdir(exist_ok=True, parents=True)
        (target / path.parent.name / name).write_bytes(path.read_bytes())


def zip_parts(source: Path, target: Path) -> None:
    for part in parts.PARTS:
        with zipfile.ZipFile(target / f"{part}.zip", "w") as archive:
            for path in (source / part).iterdir():
                archive.write(path, f"{part}/{path.name}")
            archive.writestr(f"{part}/Thumbs.db", b"not a picture")


def test_folders_and_zips_are_read_alike(drawn: Path, tmp_path: Path) -> None:
    zip_parts(drawn, tmp_path)
    folders, zips = market1501.read(drawn), market1501.read(tmp_path)
    for one, other in zip(folders.gallery, zips.gallery, strict=True):
        assert (one.name, one.identity, one.camera, one.size, one.read()) == (
            other.name,
            other.identity,
            other.camera,
            other.size,
            other.read(),
        )
    assert {sample.identity for sample in folders.gallery} >= {-1, 0}
    assert len(folders.train) == 8 * 2 * 2
    for root in (drawn, tmp_path):
        assert any(MARKET1501.pattern.match(name) for name in parts.file_names(root, parts.TRAIN))
        assert not list(parts.file_names(root, parts.HAND_DRAWN))


def test_missing_part_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"neither bounding_box_train/ nor bounding_box_train.zip.*Market-1501's"):
        market1501.read(tmp_path)
    with pytest.raises(DataError, match="is no folder"):
        market1501.read(tmp_path / "nowhere")
    (tmp_path / "bounding_box_train").mkdir()
    with pytest.raises(DataError, match=r"holds no picture named like 0002_c1s1_000451_03\.jpg"):
        market1501.read(tmp_path)
    (tmp_path / "bounding_box_train").rmdir()
    (tmp_path / "bounding_box_train.zip").write_bytes(b"rubbish")
    with pytest.raises(DataError, match="no readable zip"):
        market1501.read(tmp_path)


def test_incomplete_original_is_refused(drawn: Path) -> None:
    train, query, gallery = (len(list((drawn / part).iterdir())) for part in parts.PARTS)
    complete = replace(MARKET1501, counts=(train, query, gallery))
    assert parts.read_parts(drawn, complete).name == "Market-1501"
    with pytest.raises(DataError, match=f"holds {train} pictures, Market-1501 has {train + 1}"):
        parts.read_parts(drawn, replace(complete, counts=(train + 1, query, gallery)))
    # One part of another size: another data set.
    assert parts.read_parts(drawn, replace(complete, counts=(train + 1, 100, gallery))).name == drawn.name


def test_two_pictures_with_one_name_are_refused(drawn: Path, tmp_path: Path) -> None:
    copy_renamed(drawn, tmp_path, {})
    first = min((tmp_path / "query").iterdir())
    (tmp_path / "query" / "again").mkdir()
    (tmp_path / "query" / "again" / first.name).write_bytes(first.read_bytes())
    with pytest.raises(DataError, match=f"two pictures named {first.name}"):
        market1501.read(tmp_path)


def test_nobody_is_trained_on(drawn: Path, tmp_path: Path) -> None:
    copy_renamed(drawn, tmp_path, {})
    picture = min((tmp_path / "query").iterdir()).read_bytes()
    for name in ("-1_c1s1_000001_01.jpg", "0000_c1s1_000001_01.jpg"):
        (tmp_path / "bounding_box_train" / name).write_bytes(picture)
    data = market1501.read(tmp_path)
    assert (len(data.train), data.left_out) == (32, 2)
    assert min(sample.identity for sample in data.train) > 0


def test_hand_drawn_pictures_are_those_of_the_queries(drawn: Path, tmp_path: Path) -> None:
    copy_renamed(drawn, tmp_path, {})
    assert market1501.read(tmp_path).multi_query == ()
    shutil.copytree(tmp_path / "bounding_box_train", tmp_path / "gt_bbox")  # the original has everybody there
    asked = sorted((tmp_path / "query").iterdir())
    for path in asked:
        (tmp_path / "gt_bbox" / path.name.replace("_00.", "_01.")).write_bytes(path.read_bytes())
        (tmp_path / "gt_bbox" / path.name).write_bytes(path.read_bytes())
    asked[0].unlink()  # nobody asks for this person in this camera now
    found = market1501.read(tmp_path).multi_query
    assert [sample.name for sample in found] == sorted(
        name for path in asked[1:] for name in (path.name, path.name.replace("_00.", "_01."))
    )


@pytest.mark.parametrize("part", ["query", "gallery"])
def test_a_person_of_train_in_the_test_part_is_refused(part: str, drawn: Path, tmp_path: Path) -> None:
    copy_renamed(drawn, tmp_path, {})
    train = min((tmp_path / "bounding_box_train").iterdir())
    folder = tmp_path / {"query": "query", "gallery": "bounding_box_test"}[part]
    (folder / train.name).write_bytes(train.read_bytes())
    with pytest.raises(DataError, match=f"is in train and {part} .*must be disjoint"):
        market1501.read(tmp_path)


def test_one_camera_and_one_person_are_refused(drawn: Path, tmp_path: Path) -> None:
    data = market1501.read(drawn)
    one_camera = {f"{s.identity:04d}_c{s.camera}": f"{s.identity:04d}_c1" for s in data.query + data.gallery}
    copy_renamed(drawn, tmp_path / "camera", one_camera)
    with pytest.raises(DataError, match=r"every match of query 0009_c1s1_\d+_00.jpg shares its camera"):
        market1501.read(tmp_path / "camera")
    assert market1501.read(tmp_path / "camera", ignore_cameras=True).notes == ()
    one_person = {f"{s.identity:04d}": f"{data.train[0].identity:04d}" for s in data.train}
    copy_renamed(drawn, tmp_path / "person", one_person)
    with pytest.raises(DataError, match="two at least"):
        market1501.read(tmp_path / "person")


def test_a_damaged_picture_in_a_zip_is_named(drawn: Path, tmp_path: Path) -> None:
    zip_parts(drawn, tmp_path)
    sample = market1501.read(tmp_path).query[0]
    archive = tmp_path / "query.zip"
    packed = bytearray(archive.read_bytes())
    packed[packed.index(sample.read()) + sample.size // 2] ^= 1
    archive.write_bytes(packed)
    damaged = market1501.read(tmp_path).query[0]
    with pytest.raises(
        DataError, match=rf"^{sample.name}: cannot be unpacked from .*query.zip \(Bad CRC-32.*remove it"
    ):
        read_crop(damaged, 16, 8)
