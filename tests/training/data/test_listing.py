"""The list of a division is the data set again, whatever people, cameras and files are called."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.cli.sources import open_sources
from tests.training.data.drawing import sound, write_pictures
from training.data.__main__ import main
from training.data.dataset import DataError, Dataset
from training.data.listing import write_list
from training.data.reading import read
from training.loop.runlog import data_fingerprint

LETTERS = "aZ09 ,;\"'#äß漢-_="
names = st.text(LETTERS, min_size=1, max_size=6).filter(lambda name: name == name.strip())
people = st.lists(names, min_size=4, max_size=7, unique_by=str.casefold)
shots = st.lists(st.sampled_from(["c1", "c2", "c11", "none"]), min_size=2, max_size=5)


def parts_of(data: Dataset) -> list[list[tuple[object, ...]]]:
    return [
        [(s.name, data.identity_name(s.identity), s.identity, s.camera, s.size, s.read()) for s in part]
        for part in (data.train, data.query, data.gallery)
    ]


@settings(max_examples=25, deadline=None)
@given(people, shots)
def test_read_again_it_is_the_same_data_set(who: list[str], cameras: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_pictures(root, [f"{name}/x_{camera}_{n}.jpg" for name in who for n, camera in enumerate(cameras)])
        data = read(root, "folders", ignore_cameras=True)
        write_list(data, root / "unknown.csv")
        assert parts_of(read(root / "unknown.csv")) == parts_of(data)
        try:
            known = read(root, "folders")
        except DataError:  # every match shares its camera
            return
        write_list(known, root / "list.csv")
        again = read(root / "list.csv")
        assert parts_of(again) == parts_of(known)
        assert {**data_fingerprint(again), "name": ""} == {**data_fingerprint(known), "name": ""}


@settings(max_examples=25, deadline=None)
@given(people, st.lists(names, min_size=2, max_size=3, unique=True))
def test_so_it_is_with_named_cameras(who: list[str], cameras: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_pictures(root, [f"{n}-{m}.jpg" for n in range(len(who)) for m in range(len(cameras))])
        lines = ["path,identity,camera"]
        for n, name in enumerate(who):
            for m, camera in enumerate(cameras):
                fields = (f"{n}-{m}.jpg", name, camera)
                lines.append(",".join('"' + field.replace('"', '""') + '"' for field in fields))
        (root / "told.csv").write_text("\n".join(lines), encoding="utf-8")
        data = read(root / "told.csv")
        write_list(data, root / "list.csv")
        again = read(root / "list.csv")
        assert parts_of(again) == parts_of(data)
        assert {c: again.camera_name(c) for c in data.cameras} == dict(data.cameras)


def crops(root: Path) -> Path:
    write_pictures(root, [f"{person}/{n}.jpg" for person in ("ann", "bob", "cyd", "dan") for n in range(3)])
    return root


def test_the_file_may_lie_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = read(crops(tmp_path / "crops"))
    (tmp_path / "else" / "where").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "else" / "where")
    monkeypatch.chdir(tmp_path)
    write_list(data, Path("link") / "list.csv")
    again = read(tmp_path / "else" / "where" / "list.csv")
    assert again.query[0].name == f"../../crops/{data.query[0].name}"
    assert [sample.read() for sample in again.train] == [sample.read() for sample in data.train]
    with open_sources([Path("link") / "list.csv"]) as [source]:
        assert {item.split for item in source.items} == {"train", "query", "gallery"}
        assert {item.identity for item in source.items} == {"ann", "bob", "cyd", "dan"}
        assert all(item.read() for item in source.items)


def test_the_command_writes_it_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "list.csv"
    command = [str(crops(tmp_path / "crops")), "--list", str(file)]
    assert main(command) == 0
    assert file.read_text().splitlines()[:2] == ["path,identity,camera,split", "crops/ann/0.jpg,ann,,train"]
    assert f"{file} tells who is learnt and who is tested\n" in capsys.readouterr().out
    assert main(command) == 2
    assert "is there already, perhaps with changes of yours" in capsys.readouterr().err
    assert main([str(file)]) == 0


def test_what_cannot_be_read_again_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="sound is a benchmark"):
        write_list(sound(), tmp_path / "list.csv")
    data = read(crops(tmp_path / "crops"))
    with pytest.raises(DataError, match=r"list\.txt is no \.csv"):
        write_list(data, tmp_path / "list.txt")
    with pytest.raises(DataError, match="' ann' begins or ends with a space"):
        write_list(replace(data, identities={**data.identities, 1: " ann"}), tmp_path / "list.csv")
    os.rename(tmp_path / "crops" / "bob", os.fsencode(tmp_path / "crops") + b"/b\xffb")
    with pytest.raises(DataError, match="that a table in UTF-8 cannot hold: rename it"):
        write_list(read(tmp_path / "crops"), tmp_path / "list.csv")
    assert not (tmp_path / "list.csv").exists()
