from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.data.drawing import write_pictures
from training.data import table
from training.data.dataset import UNKNOWN_CAMERA, DataError

PEOPLE = ("anna", "bert", "carla", "dora")


def write_table(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    """The table, and every picture that it names."""
    path = folder / "pictures.csv"
    path.write_text(text, encoding)
    write_pictures(folder, [f"crops/{n}.jpg" for n in range(16)])
    return path


def rows(*columns: str) -> str:
    """Four pictures a person; the columns are templates with n and person."""
    lines = (
        ",".join(column.format(n=4 * number + shot, person=person, shot=shot) for column in columns)
        for number, person in enumerate(PEOPLE)
        for shot in range(4)
    )
    return "\n".join(lines)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_paths_are_relative_to_the_file(tmp_path: Path, encoding: str) -> None:
    text = "path, identity ,taken\n" + rows("crops/{n}.jpg", " {person}", "2026-01-0{shot}")
    data = table.read(write_table(tmp_path, text, encoding))
    everything = (*data.train, *data.query, *data.gallery)
    assert {sample.camera for sample in everything} == {UNKNOWN_CAMERA}
    assert {sample.name: sample.identity for sample in everything} == {f"crops/{n}.jpg": 1 + n // 4 for n in range(16)}
    assert data.divided
    assert (data.name, len(data.train), len(data.query), len(data.gallery)) == ("pictures", 8, 2, 6)
    assert data.notes == (f"columns of {tmp_path / 'pictures.csv'} that are not read: taken",)
    assert data.query[0].read() == (tmp_path / data.query[0].name).read_bytes()


def test_semicolons_part_columns_too(tmp_path: Path) -> None:
    text = "path;identity;camera\n" + rows("crops/{n}.jpg", "{person}", "{shot}").replace(",", ";")
    data = table.read(write_table(tmp_path, text))
    assert {sample.camera for sample in data.train} == {0, 1, 2, 3}
    assert len({sample.identity for sample in (*data.train, *data.gallery)}) == len(PEOPLE)


def test_identities_and_cameras_may_be_long_numbers(tmp_path: Path) -> None:
    long = "9" * 30
    text = "path,identity,camera\n" + rows("crops/{n}.jpg", "{person}", f"{long}{{shot}}").replace("anna", long)
    data = table.read(write_table(tmp_path, text))
    samples = (*data.train, *data.query, *data.gallery)
    assert {sample.identity for sample in samples} == {sample.camera for sample in samples} == {1, 2, 3, 4}


def test_cameras_and_split(tmp_path: Path) -> None:
    split = {"anna": "train", "bert": "train", "carla": "query", "dora": "gallery"}
    lines = rows("crops/{n}.jpg", "{person}", "gate {shot}", "{person}")
    for person, part in split.items():
        lines = lines.replace(f",{person}\n", f",{part}\n").removesuffix(f",{person}") + (
            f",{part}" if lines.endswith(f",{person}") else ""
        )
    lines = lines.replace("crops/15.jpg,dora", "crops/15.jpg,carla")
    data = table.read(write_table(tmp_path, f"path,identity,camera,split\n{lines}\n"))
    assert not data.divided
    assert [sample.identity for sample in data.query] == [3, 3, 3, 3]
    assert sorted((sample.identity, sample.camera) for sample in data.gallery) == [(3, 4), (4, 1), (4, 2), (4, 3)]
    assert [sample.camera for sample in data.train][:2] == [1, 2]
    assert data.notes == (
        "1 of 4 queries have no match and are not counted: every match of query crops/11.jpg shares its camera (4)",
    )


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (["7", "3", "", "3"], {"3": 3, "7": 7, "": UNKNOWN_CAMERA}),
        (["north", "3", "gate"], {"3": 1, "gate": 2, "north": 3, "": UNKNOWN_CAMERA}),
        ([""], {"": UNKNOWN_CAMERA}),
        (["2", "9" * 20], {"2": 1, "9" * 20: 2, "": UNKNOWN_CAMERA}),
        (["-1", "2"], {"-1": 1, "2": 2, "": UNKNOWN_CAMERA}),
    ],
)
def test_cameras_are_numbered(names: list[str], numbers: dict[str, int]) -> None:
    assert table.number_cameras(names) == numbers


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,person\ncrops/1.jpg,anna", r"has no column 'identity' but \['path', 'person'\]"),
        ("path,identity,cam\ncrops/1.jpg,anna,1", "a column 'cam' and no 'camera': is that meant, name it 'camera'"),
        ("path,identity,Camera_ID\ncrops/1.jpg,anna,1", "a column 'Camera_ID' and no 'camera'"),
        ("path,identity,Split\ncrops/1.jpg,anna,train", "a column 'Split' and no 'split'"),
        ("path,identity,identity\ncrops/1.jpg,anna,bert", "has 2 columns 'identity': leave one of them"),
        ("path,identity\ncrops/1.jpg,anna\ncrops/2.jpg,Miller, anna", "line 3: more values than columns"),
        ("path|identity\ncrops/1.jpg|anna", "has no column 'path'"),
        ("", "has no column 'path'"),
        ("path,identity\n", "a header and no line below it"),
        ("path,identity\ncrops/1.jpg,anna\ncrops/2.jpg\n", "line 3: no identity"),
        ("path,identity\ncrops/1.jpg,anna\n\ncrops/99.jpg,bert\n", "line 4: there is no picture .*crops/99.jpg"),
        ("path,identity\ncrops/1.jpg,anna\ncrops/1.jpg,bert\n", "line 3: crops/1.jpg is in line 2 already"),
        ("path,identity\ncrops/1.jpg,anna\ncrops/../crops/1.jpg,bert\n", "crops/../crops/1.jpg is in line 2 already"),
        ("path,identity,split\ncrops/1.jpg,anna,train\ncrops/2.jpg,bert,test\n", "line 3: split is 'test', not one of"),
        ("path,identity,split\ncrops/1.jpg,anna,train\ncrops/2.jpg,bert,\n", "line 3: split is ''"),
        ("path,identity\ncrops/1.jpg,anna\n", "holds pictures of 1 identity"),
        (
            "path,identity,split\ncrops/1.jpg,anna,train\ncrops/2.jpg,bert,train\n",
            "has no query picture: nothing could be measured",
        ),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        table.read(write_table(tmp_path, text))


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pictures.csv"
    with pytest.raises(DataError, match="cannot be read as a CSV file"):
        table.read(path)
    path.write_bytes(b"\xff\xfe\x00path")
    with pytest.raises(DataError, match="cannot be read as a CSV file in UTF-8"):
        table.read(path)


def test_names_are_kept(tmp_path: Path) -> None:
    text = "path,identity,camera\n" + rows("crops/{n}.jpg", "{person}", "gate {shot}")
    data = table.read(write_table(tmp_path, text))
    assert [data.camera_name(camera) for camera in (1, 4)] == ["gate 0", "gate 3"]
    assert [data.identity_name(identity) for identity in (1, 4, 17)] == ["anna", "dora", "0017"]
