"""Who asks and who answers in each split."""

from __future__ import annotations

import pytest

from training.data.dataset import DataError, Dataset
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
