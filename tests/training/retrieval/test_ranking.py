"""Who asks and who answers in each split."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.data.drawing import write_pictures
from training.data.dataset import DataError, Dataset
from training.data.reading import read
from training.retrieval.ranking import ranking_of


def test_junk_is_not_embedded_and_distractors_are(data: Dataset) -> None:
    identities = {sample.identity for sample in ranking_of(data, "test").gallery}
    assert -1 in {sample.identity for sample in data.gallery}
    assert -1 not in identities
    assert 0 in identities


def test_the_training_part_asks_itself(data: Dataset) -> None:
    ranking = ranking_of(data, "train")
    assert len(ranking.query) == 6  # 3 identities x 2 cameras
    assert set(ranking.query).isdisjoint(ranking.gallery)
    assert len(ranking.query) + len(ranking.gallery) == len(data.train)


def test_a_training_part_without_a_gallery_is_refused(data: Dataset) -> None:
    lone = Dataset("lone", ranking_of(data, "train").query, data.query, data.gallery)
    with pytest.raises(DataError, match="there is no gallery"):
        ranking_of(lone, "train")


def test_all_people_are_measured_as_if_they_were_test_people(tmp_path: Path) -> None:
    """Those to learn ask and answer as they would if the table had them among the test people."""
    shots = ("c1s1_01.jpg", "c1s1_02.jpg", "c2s1_03.jpg", "c2s1_04.jpg", "c3s1_05.jpg")
    names = [f"{person}/0001_{shot}" for person in ("ann", "bob", "cyd", "dan", "eve", "fay") for shot in shots]
    write_pictures(tmp_path, names)
    data = read(tmp_path)
    ranking = ranking_of(data, "all")
    assert {sample.name for sample in (*ranking.query, *ranking.gallery)} == set(names)
    assert sorted(sample.name for sample in ranking.query) == sorted(
        name for name in names if name.endswith(("_01.jpg", "_03.jpg"))
    )
    assert set(ranking_of(data, "test").query) < set(ranking.query)


def test_of_a_benchmark_too(data: Dataset) -> None:
    ranking, test = ranking_of(data, "all"), ranking_of(data, "test")
    assert len(ranking.query) + len(ranking.gallery) == len(test.query) + len(test.gallery) + len(data.train)
    assert ranking.query[-len(test.query) :] == test.query
    assert ranking.gallery[-len(test.gallery) :] == test.gallery
    assert not ranking.multi_query
