from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from training.data.dataset import UNKNOWN_CAMERA, DataError
from training.data.own import Divided, Picture, divide

ROOT = Path("place")
NAMES = [f"person {n}" for n in range(9)]


def pictures(people: list[str], cameras: tuple[int, ...]) -> list[Picture]:
    """For every person a picture of each of the cameras."""
    return [
        Picture(f"{person}/{n}.jpg", ROOT / f"{person}/{n}.jpg", person, camera)
        for person in people
        for n, camera in enumerate(cameras)
    ]


def people(divided: Divided) -> dict[str, set[str]]:
    return {split: {picture.identity for picture in chosen} for split, chosen in divided.items()}


@pytest.mark.parametrize("count", [4, 5, 8, 9, 40])
def test_half_of_the_people_learn_and_the_others_ask_and_answer(count: int) -> None:
    names = [f"person {n}" for n in range(count)]
    everything = pictures(names, (1, 1, 2, 2))
    divided = divide(ROOT, everything)
    who = people(divided)
    assert len(who["train"]) >= 2
    assert len(who["query"]) >= 2
    assert who["query"] == who["gallery"] == set(names) - who["train"]
    assert sorted(picture.name for part in divided.values() for picture in part) == sorted(p.name for p in everything)
    assert Counter((picture.identity, picture.camera) for picture in divided["query"]) == {
        (person, camera): 1 for person in who["query"] for camera in (1, 2)
    }
    assert {Path(picture.name).stem for picture in divided["query"]} == {"0", "2"}  # the first of each camera


def test_the_split_depends_on_the_people_alone() -> None:
    few, many = pictures(NAMES, (1, 2)), pictures(NAMES, (1, 2, 2, 3))
    assert people(divide(ROOT, few))["train"] == people(divide(ROOT, many[::-1]))["train"]
    assert divide(ROOT, many[::-1]) == divide(ROOT, many)


def side(name: str) -> str:
    """Where the hash alone puts a person."""
    return "train" if hashlib.sha256(name.encode()).hexdigest()[0] in "01234567" else "query"


@pytest.mark.parametrize("seed", range(10))
def test_people_who_are_added_move_nobody(seed: int) -> None:
    names = [f"{name}" for name in np.random.default_rng(seed).integers(10**6, size=60)]
    for count in range(4, len(names)):
        who = people(divide(ROOT, pictures(names[:count], (1, 2))))
        by_hash = {part: {name for name in names[:count] if side(name) == part} for part in ("train", "query")}
        if min(map(len, by_hash.values())) >= 2:
            assert {part: who[part] for part in by_hash} == by_hash
        else:  # as few as possible have moved, and only to the side that lacks them
            scarce = min(by_hash, key=lambda part: len(by_hash[part]))
            assert len(who[scarce]) == 2
            assert who[scarce] >= by_hash[scarce]


@pytest.mark.parametrize(
    ("cameras", "queries"),
    [
        ((UNKNOWN_CAMERA,) * 3, ["0"]),
        ((1, 1, 1, 2), ["0"]),  # camera 2's only picture answers
        ((1, 2, 3), ["0"]),
        ((1, 1, 2, 2, 3), ["0", "2"]),
        ((1,), []),  # nobody could answer
    ],
)
def test_a_query_leaves_somebody_to_answer(cameras: tuple[int, ...], queries: list[str]) -> None:
    divided = divide(ROOT, pictures(NAMES[:4], cameras))
    for person in people(divided)["gallery"]:
        asked = [Path(picture.name).stem for picture in divided["query"] if picture.identity == person]
        assert asked == queries


def test_four_people_are_needed() -> None:
    with pytest.raises(DataError, match="place holds pictures of 3 identities: 4 at least are needed"):
        divide(ROOT, pictures(NAMES[:3], (1, 2)))
