from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from training.data.dataset import UNKNOWN_CAMERA
from training.data.sampler import pk_batches

LABELS = [label for label, count in enumerate((1, 2, 3, 4, 5, 9, 12, 17)) for _ in range(count)]
# One to six cameras, evenly and unevenly, and some unknown ones.
CAMERAS = [int(camera) for camera in np.random.default_rng(0).choice(7, len(LABELS), p=[0.4, *[0.1] * 6]) - 1]
WAYS = pytest.mark.parametrize("cameras", [None, CAMERAS], ids=["identity", "camera"])


def order(cameras: list[int] | None, seed: int, epoch: int, short: bool = False) -> list[list[int]]:
    batches = pk_batches(LABELS, cameras, identities=3, shots=4, seed=seed, epoch=epoch, short=short)
    return [batch.tolist() for batch in batches]


@WAYS
@pytest.mark.parametrize("epoch", range(20))
def test_batches_hold_shots_of_distinct_identities(cameras: list[int] | None, epoch: int) -> None:
    for batch in order(cameras, 7, epoch):
        counts = Counter(LABELS[index] for index in batch)
        assert list(counts.values()) == [4, 4, 4]
        assert [LABELS[index] for index in batch] == [LABELS[index] for index in batch[::4] for _ in range(4)]


@WAYS
def test_epochs_differ_and_repeat(cameras: list[int] | None) -> None:
    assert order(cameras, 0, 0) == order(cameras, 0, 0)
    assert order(cameras, 0, 0) != order(cameras, 0, 1)
    assert order(cameras, 0, 0) != order(cameras, 1, 0)


def test_the_order_is_that_of_earlier_runs() -> None:
    """As the first version drew it: a run that began then continues to the bit."""
    labels = [label for label, count in enumerate((1, 2, 3, 5)) for _ in range(count)]
    for short in (False, True):
        batches = pk_batches(labels, identities=2, shots=2, seed=3, epoch=1, short=short)
        assert [batch.tolist() for batch in batches] == [[3, 4, 10, 6], [0, 0, 1, 2]]


def test_an_epoch_of_images_shows_about_every_picture_and_none_twice_where_there_are_enough() -> None:
    labels = [label for label in range(40) for _ in range(12)]
    for cameras in (None, [n % 3 for n in range(len(labels))]):
        seen = np.concatenate(list(pk_batches(labels, cameras, identities=4, shots=4, seed=0, epoch=0)))
        assert len(seen) == len(set(seen.tolist()))
        assert len(seen) > 0.9 * len(labels)


@WAYS
def test_an_epoch_of_identities_shows_each_once(cameras: list[int] | None) -> None:
    labels = [label for label in range(40) for _ in range(12)]
    chosen = None if cameras is None else [n % 5 for n in range(len(labels))]
    batches = list(pk_batches(labels, chosen, identities=4, shots=4, seed=0, epoch=0, short=True))
    assert len(batches) == 10
    assert Counter(labels[index] for batch in batches for index in batch) == dict.fromkeys(range(40), 4)


@pytest.mark.parametrize("shots", [2, 3, 4, 8])
@pytest.mark.parametrize("epoch", range(5))
def test_an_identitys_shots_come_from_as_many_cameras_as_it_has(shots: int, epoch: int) -> None:
    places = [(camera, index if camera == UNKNOWN_CAMERA else None) for index, camera in enumerate(CAMERAS)]
    groups = 0
    for batch in pk_batches(LABELS, CAMERAS, identities=3, shots=shots, seed=0, epoch=epoch):
        for group in batch.reshape(3, shots):
            own = [index for index, label in enumerate(LABELS) if label == LABELS[group[0]]]
            there = {places[index] for index in own}
            assert len({places[index] for index in group}) == min(shots, len(there))
            # No picture twice, unless the person has fewer than are asked for.
            assert len(set(group.tolist())) == min(shots, len(own))
            groups += 1
    assert groups >= 6


def test_every_picture_has_its_turn() -> None:
    """A camera's last pictures are not left out: over some epochs all of an identity's are seen."""
    seen = {index for epoch in range(30) for batch in order(CAMERAS, 0, epoch, short=True) for index in batch}
    assert seen == set(range(len(LABELS)))


@WAYS
def test_too_few_identities_are_named(cameras: list[int] | None) -> None:
    with pytest.raises(ValueError, match="16 identities cannot be drawn from 8"):
        next(pk_batches(LABELS, cameras, identities=16, shots=4, seed=0, epoch=0))
