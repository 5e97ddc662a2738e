from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.training.data.drawing import write_pictures
from training.data import folders
from training.data.dataset import UNKNOWN_CAMERA, DataError
from training.data.images import read_crop
from training.data.reading import read
from training.loop.runlog import data_fingerprint

PEOPLE = ("anna", "bert", "carla", "dora")


def test_a_folder_per_identity(tmp_path: Path) -> None:
    names = [f"{person}/{n}{suffix}" for person in PEOPLE for n, suffix in enumerate((".jpg", ".PNG", ".webp"))]
    write_pictures(tmp_path, [*names, "anna/.hidden.jpg", ".cache/1.jpg", "stray.jpg"])
    (tmp_path / "anna" / "notes.txt").write_text("no picture")
    data = folders.read(tmp_path)
    everything = (*data.train, *data.query, *data.gallery)
    assert sorted(sample.name for sample in everything) == sorted(names)
    assert {sample.name.split("/")[0]: sample.identity for sample in everything} == {
        person: number for number, person in enumerate(PEOPLE, start=1)
    }
    assert {sample.camera for sample in everything} == {UNKNOWN_CAMERA}
    assert (len(data.train), len(data.query), len(data.gallery)) == (6, 2, 4)
    assert data.name == tmp_path.name
    assert data.notes == (
        "pictures beside the identities' folders are not read (1), such as stray.jpg: move them into the folder of "
        "their person",
        "files that are no .jpeg, .jpg, .png, .webp are not read (1), such as anna/notes.txt",
    )
    assert {read_crop(sample, 16, 8).shape for sample in everything} == {(16, 8, 3)}
    assert data.train[0].read() == (tmp_path / data.train[0].name).read_bytes()
    assert data.train[0].size == (tmp_path / data.train[0].name).stat().st_size


def test_names_like_the_benchmarks_tell_the_camera(tmp_path: Path) -> None:
    names = ("0002_c1s1_000451_03.jpg", "0002_c2s1_000451_03.jpg", "0002_c7_f0046182.jpg", "c5_1.jpg")
    write_pictures(tmp_path, [f"{person}/{name}" for person in PEOPLE for name in names])
    data = folders.read(tmp_path)
    assert [sample.camera for sample in data.train[:4]] == [1, 2, 7, UNKNOWN_CAMERA]


def test_a_camera_of_too_many_digits_is_named(tmp_path: Path) -> None:
    write_pictures(tmp_path, [f"{person}/0001_c{'9' * 30}_1.jpg" for person in PEOPLE])
    with pytest.raises(DataError, match=r"0001_c9+_1\.jpg has a number of more than 9 digits in its name: rename it"):
        folders.read(tmp_path)


def test_names_that_are_no_utf8_are_read_and_can_be_printed_and_hashed(tmp_path: Path) -> None:
    write_pictures(tmp_path / "people", [f"{person}/{n}.jpg" for person in PEOPLE for n in (1, 2)])
    folder = os.fsdecode(os.fsencode(tmp_path / "people") + b"/Zo\xeb")
    write_pictures(Path(folder), [os.fsdecode(b"caf\xe9.jpg"), "b.jpg"])
    data = read(tmp_path / "people")
    names = [sample.name for sample in (*data.train, *data.query, *data.gallery)]
    assert r"Zo\xeb/caf\xe9.jpg" in names
    assert "".join([data.name, *names]).isprintable()
    assert len(data_fingerprint(data)["sha256"]) == 64


def test_names_cannot_break_a_message_or_command_a_terminal(tmp_path: Path) -> None:
    write_pictures(tmp_path, [f"{person}/{n}.jpg" for person in PEOPLE for n in ("1", "two\nlines", "\x1b[31mred")])
    names = {sample.name for sample in read(tmp_path).train}
    assert {name.partition("/")[2] for name in names} == {"1.jpg", r"two\x0alines.jpg", r"\x1b[31mred.jpg"}


def test_given_parts(tmp_path: Path) -> None:
    write_pictures(tmp_path / "train", [f"{person}/{n}.jpg" for person in ("dora", "bert") for n in (1, 2)])
    write_pictures(tmp_path / "query", ["carla/1.jpg"])
    write_pictures(tmp_path / "gallery", ["carla/1.jpg", "anna/1.jpg"])
    data = folders.read(tmp_path)
    assert [(sample.name, sample.identity) for sample in data.train] == [
        ("bert/1.jpg", 2),
        ("bert/2.jpg", 2),
        ("dora/1.jpg", 4),
        ("dora/2.jpg", 4),
    ]
    assert [sample.identity for sample in data.query] == [3]
    assert [sample.identity for sample in data.gallery] == [1, 3]


@pytest.mark.parametrize("missing", ["train", "query", "gallery"])
def test_a_missing_part_is_named(tmp_path: Path, missing: str) -> None:
    for part in {"train", "query", "gallery"} - {missing}:
        write_pictures(tmp_path / part, ["anna/1.jpg", "bert/1.jpg"])
    with pytest.raises(DataError, match=f"has no {missing}/: train, query, gallery are needed"):
        folders.read(tmp_path)


def test_one_person_is_explained(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["anna/1.jpg", "anna/2.jpg"])
    with pytest.raises(DataError, match="holds pictures of 1 identity: 4 at least"):
        folders.read(tmp_path)
    with pytest.raises(DataError, match="is no folder"):
        folders.read(tmp_path / "anna" / "1.jpg")


@pytest.mark.parametrize("parts", [("",), ("train", "query", "gallery")])
def test_pictures_that_lie_too_deep_are_noted(tmp_path: Path, parts: tuple[str, ...]) -> None:
    people = {"": PEOPLE, "train": PEOPLE[:2], "query": PEOPLE[2:], "gallery": PEOPLE[2:]}
    for part in parts:
        write_pictures(tmp_path / part, [f"{person}/{n}.jpg" for person in people[part] for n in (1, 2)])
    first = Path(parts[0]) / "anna"
    write_pictures(tmp_path / first, ["monday/1.jpg", "monday/late/2.png", ".cache/3.jpg", "monday/.4.jpg"])
    (note,) = folders.read(tmp_path).notes
    expected = first / "monday" / "1.jpg"
    assert note == f"pictures in folders within an identity's folder are not read (2), such as {expected}: move them up"
