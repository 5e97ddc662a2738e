"""Identities and cameras kept out of training, to measure on them what was never learnt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from training.data.dataset import UNKNOWN_CAMERA, DataError, Dataset, Sample

FEWEST = 2  # identities that training needs


def hold_out(samples: Sequence[Sample], identities: int, seed: int) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Split off `identities` people: (kept, held out), both in the given order.

    Who is held out depends on `seed` and on the set of identities alone, not on the order or number of pictures.

    Raises:
        DataError: fewer than two identities would be left.
    """
    people = sorted({sample.identity for sample in samples})
    if len(people) - identities < FEWEST:
        most = max(0, len(people) - FEWEST)
        remedy = f"{most} or less" if most > 1 else "0"  # one alone has no strangers
        raise DataError(
            f"{identities} of {len(people)} training identities cannot be held out, because training needs "
            f"{FEWEST} at least: set calibration_identities to {remedy}"
        )
    chosen = set(np.random.default_rng(seed).permutation(people)[:identities].tolist())
    kept = tuple(sample for sample in samples if sample.identity not in chosen)
    return kept, tuple(sample for sample in samples if sample.identity in chosen)


def stranger_pairs(samples: Sequence[Sample]) -> int:
    """How many pairs of pictures are of two people."""
    pictures = Counter(sample.identity for sample in samples)
    return (len(samples) ** 2 - sum(count**2 for count in pictures.values())) // 2


def without_cameras(data: Dataset, names: Sequence[str]) -> Dataset:
    """The data set without the training pictures of the cameras with these names; its test part stays.

    Raises:
        DataError: no picture is of such a camera, or the other cameras show fewer than two people.
    """
    if not names:
        return data
    excluded = _numbers(data, names)
    kept = tuple(sample for sample in data.train if sample.camera not in excluded)
    people = len({sample.identity for sample in kept})
    if people < FEWEST:
        raise DataError(
            f"without {_listed(names)}, {people} people are left, and training needs {FEWEST}: exclude fewer"
        )
    note = (
        f"{len(data.train) - len(kept)} of {len(data.train)} training pictures are of excluded cameras "
        f"({', '.join(names)}): {people} people are left to learn"
    )
    return replace(data, train=kept, notes=(*data.notes, note))


def only_cameras(data: Dataset, names: Sequence[str]) -> Dataset:
    """The data set with the pictures of the cameras with these names alone, and a name that says so.

    Raises:
        DataError: no picture is of such a camera.
    """
    if not names:
        return data
    asked = _numbers(data, names)

    def of(samples: Sequence[Sample]) -> tuple[Sample, ...]:
        return tuple(sample for sample in samples if sample.camera in asked)

    train, query, gallery, multi_query = of(data.train), of(data.query), of(data.gallery), of(data.multi_query)
    name = f"{data.name}, only {_listed(names)}"
    return replace(data, name=name, train=train, query=query, gallery=gallery, multi_query=multi_query)


def _numbers(data: Dataset, names: Collection[str]) -> set[int]:
    """The numbers of the cameras with these names."""
    cameras = {sample.camera for part in (data.train, data.query, data.gallery) for sample in part} - {UNKNOWN_CAMERA}
    numbers = {data.camera_name(camera): camera for camera in sorted(cameras)}
    for name in names:
        if name not in numbers:
            there = f"there are {', '.join(numbers)}" if numbers else "no camera is known"
            raise DataError(f"no picture is of a camera {name!r}; {there}")
    return {numbers[name] for name in names}


def _listed(names: Sequence[str]) -> str:
    return f"camera{'s' if len(names) > 1 else ''} {', '.join(names)}"
