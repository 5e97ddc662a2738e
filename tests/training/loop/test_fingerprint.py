from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from training.data import market1501
from training.data.dataset import Dataset, Sample
from training.loop.runlog import data_fingerprint


def test_the_fingerprint_is_of_names_and_lengths(drawn: Path, tmp_path: Path) -> None:
    shutil.copytree(drawn, tmp_path, dirs_exist_ok=True)
    before, copied = data_fingerprint(market1501.read(drawn)), data_fingerprint(market1501.read(tmp_path))
    assert before["sha256"] == copied["sha256"]
    assert before["gallery"]["identities"] == 4  # people: neither distractors nor junk
    victim = min((tmp_path / "bounding_box_train").iterdir())
    victim.write_bytes(victim.read_bytes() + b"0")
    assert data_fingerprint(market1501.read(tmp_path))["sha256"] != before["sha256"]


def swapped(samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
    """The first and the last picture show each other's person."""
    first, *others, last = samples
    assert first.identity != last.identity
    return (replace(first, identity=last.identity), *others, replace(last, identity=first.identity))


def moved(samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
    return (replace(samples[0], camera=samples[0].camera + 1), *samples[1:])


@pytest.mark.parametrize(
    ("part", "own", "other"),
    [("train", "sha256", "test_sha256"), ("query", "test_sha256", "sha256"), ("gallery", "test_sha256", "sha256")],
)
def test_each_part_changes_its_own_hash_alone(part: str, own: str, other: str, data: Dataset) -> None:
    before = data_fingerprint(data)
    samples = getattr(data, part)
    for changed in (swapped(samples), moved(samples), samples[1:]):
        found = data_fingerprint(replace(data, **{part: changed}))  # type: ignore[arg-type]
        assert found[own] != before[own]
        assert found[other] == before[other]
    again = data_fingerprint(replace(data, **{part: samples[::-1]}))
    assert (again[own], again[other]) == (before[own], before[other])


def test_what_a_training_identity_is_called_does_not_matter(data: Dataset) -> None:
    renamed = replace(data, train=tuple(replace(sample, identity=2 * sample.identity) for sample in data.train))
    assert data_fingerprint(renamed)["sha256"] == data_fingerprint(data)["sha256"]
