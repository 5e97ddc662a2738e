from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.training.data.drawing import samples, sound
from training.data.checks import checked
from training.data.dataset import UNKNOWN_CAMERA, DataError, Dataset

ROOT = Path("place")


def test_a_sound_data_set_stays_as_it_is() -> None:
    assert checked(ROOT, sound()) == sound()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": samples((1, 1), (1, 2))}, "train part of place holds one identity: training needs two at least"),
        ({"train": ()}, "train part of place holds no identity"),
        ({"query": ()}, "place has no query picture"),
        ({"gallery": ()}, "place has no gallery picture"),
        ({"query": samples((3, 1), (2, 1))}, r"identity 0002 is in train and query of place \(003.jpg, 001.jpg\)"),
        ({"gallery": samples((3, 2), (1, 1))}, "identity 0001 is in train and gallery of place"),
        (
            {"gallery": samples((3, 1), (4, 1), (0, 2))},
            r"no query of place has a match: every match of query 010.jpg shares its camera \(1\), "
            "and of 1 more theirs.*--ignore-cameras",
        ),
        ({"gallery": samples((0, 2), (9, 2))}, "no query .* has a match: the person of query 010.jpg is not in the"),
        (
            {"query": samples((0, 1), (0, 2), start=10), "gallery": samples((0, 1), (0, 2), (3, 1))},
            "no query .* has a match: the number of query 010.jpg, 0000, means distractor, and so does that of 1 more: "
            "number people from 0001",
        ),
        ({"query": samples((-1, 1)), "gallery": samples((-1, 2))}, "query 000.jpg, -1, means junk: number people"),
        ({"gallery": samples((3, 1), (9, 2))}, "query 010.jpg shares its camera .*; the person of query 011.jpg is"),
    ],
)
def test_what_is_wrong_is_said(changes: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        checked(ROOT, replace(sound(), **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("gallery", "reason"),
    [
        (samples((3, 1), (4, 2)), r"every match of query 010.jpg shares its camera \(1\)$"),
        (
            samples(
                (4, 2),
            ),
            "the person of query 010.jpg is not in the gallery$",
        ),
    ],
)
def test_queries_without_a_match_are_noted(gallery: tuple[object, ...], reason: str) -> None:
    data = checked(ROOT, replace(sound(), gallery=gallery, notes=("earlier",)))  # type: ignore[arg-type]
    assert data.notes[0] == "earlier"
    assert len(data.notes) == 2
    assert data.notes[1].startswith("1 of 2 queries have no match and are not counted: ")
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(data.notes[1])


def one_camera() -> Dataset:
    return replace(sound(), gallery=samples((3, 1), (4, 1)), multi_query=samples((3, 1)))


def test_ignored_cameras_are_unknown_and_match() -> None:
    with pytest.raises(DataError, match="shares its camera"):
        checked(ROOT, one_camera())
    data = checked(ROOT, one_camera(), ignore_cameras=True)
    everything = (*data.train, *data.query, *data.gallery, *data.multi_query)
    assert {sample.camera for sample in everything} == {UNKNOWN_CAMERA}
    assert data.notes == ()


def test_an_unknown_camera_is_shared_by_nobody() -> None:
    unknown = replace(
        sound(), query=samples((3, UNKNOWN_CAMERA)), gallery=samples((3, UNKNOWN_CAMERA), (4, 1), start=20)
    )
    assert checked(ROOT, unknown).notes == ()
