"""What training learns from a folder is what `resight enrol` makes of it: the same person and camera each time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest

from service.cli.items import SourceError
from service.cli.sources import open_sources
from tests.training.data.drawing import write_pictures
from training.data.dataset import DataError
from training.data.reading import read

PEOPLE = ("anna", "ben", "carla", "dora")
LIKE_MARKET = ("0002_c1s1_000451_03.jpg", "0002_c2s1_000451_03.jpg")
EXAMPLES = Path(__file__).parents[2] / "examples" / "crops"

Groups = set[frozenset[str]]


def grouped(labelled: Iterable[tuple[str, object]]) -> Groups:
    """Which pictures show the same person, whatever that one is called."""
    people: dict[object, set[str]] = defaultdict(set)
    for name, person in labelled:
        people[person].add(name)
    return {frozenset(names) for names in people.values()}


def learnt(path: Path) -> Groups:
    data = read(path)
    return grouped((sample.name, sample.identity) for sample in (*data.train, *data.query, *data.gallery))


def enrolled(path: Path) -> Groups:
    with open_sources([path]) as [source]:
        return grouped((item.name, item.identity) for item in source.items)


@pytest.mark.parametrize("names", [("1.jpg", "2.jpg"), LIKE_MARKET])
def test_a_folder_is_a_person_whatever_the_files_are_called(tmp_path: Path, names: tuple[str, ...]) -> None:
    write_pictures(tmp_path, [f"{person}/{name}" for person in PEOPLE for name in names])
    assert learnt(tmp_path) == enrolled(tmp_path) == {frozenset(f"{p}/{n}" for n in names) for p in PEOPLE}


def test_in_a_persons_folder_the_names_tell_the_camera(tmp_path: Path) -> None:
    names = ("0001_c1s1_000001_01.jpg", "anna_c2_door.jpg", "_c3_1.jpg", "x_c4.jpg", "5.jpg")
    write_pictures(tmp_path, [f"{person}/{name}" for person in PEOPLE for name in names])
    data = read(tmp_path)
    cameras = {sample.name: sample.camera for sample in (*data.train, *data.query, *data.gallery)}
    with open_sources([tmp_path]) as [source]:
        assert {item.camera for item in source.items} == {"c1", "c2", None}
        assert {item.name: int((item.camera or "c-1")[1:]) for item in source.items} == cameras


@pytest.mark.parametrize("names", [("1.jpg", "2.jpg"), LIKE_MARKET])
def test_also_below_train_query_and_gallery(tmp_path: Path, names: tuple[str, ...]) -> None:
    parts = {"train": PEOPLE[:2], "query": PEOPLE[2:], "gallery": PEOPLE[2:]}
    write_pictures(tmp_path, [f"{part}/{p}/{name}" for part, people in parts.items() for p in people for name in names])
    with open_sources([tmp_path]) as [source]:
        assert {item.identity for item in source.items} == set(PEOPLE)
    assert len(learnt(tmp_path)) == len(PEOPLE)


def test_one_folder_of_names_that_tell_who_it_is() -> None:
    groups = enrolled(EXAMPLES)
    assert learnt(EXAMPLES) == groups
    assert {len(names) for names in groups} == {3}


def test_neither_guesses_what_one_folder_in_another_means() -> None:
    with pytest.raises(DataError, match="pictures of 1 identity"):
        read(EXAMPLES.parent)
    with pytest.raises(SourceError, match="one folder with images"), open_sources([EXAMPLES.parent]):
        pass


def test_what_training_measures_with_can_be_enrolled(tmp_path: Path) -> None:
    """The gallery of a benchmark, by the names in its folder."""
    names = [f"000{n}_c{camera}s1_000001_01.jpg" for n in (1, 2) for camera in (1, 2)]
    write_pictures(tmp_path / "bounding_box_train", [f"1{name}" for name in names])
    write_pictures(tmp_path / "query", [name for name in names if "_c1" in name])
    write_pictures(tmp_path / "bounding_box_test", names)
    gallery = grouped((sample.name, sample.identity) for sample in read(tmp_path).gallery)
    assert enrolled(tmp_path / "bounding_box_test") == gallery
