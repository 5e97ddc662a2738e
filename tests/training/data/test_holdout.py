from __future__ import annotations

import pytest

from tests.training.data.drawing import samples
from training.data.dataset import DataError
from training.data.holdout import hold_out, stranger_pairs

PEOPLE = samples(*((identity, camera) for camera in (1, 2, 3) for identity in (5, 9, 2, 7, 4, 8)))


@pytest.mark.parametrize("identities", range(5))
def test_whole_identities_are_held_out_in_order(identities: int) -> None:
    kept, held = hold_out(PEOPLE, identities, seed=3)
    assert len({sample.identity for sample in held}) == identities
    assert not {sample.identity for sample in held} & {sample.identity for sample in kept}
    assert sorted(kept + held, key=PEOPLE.index) == list(PEOPLE)
    for part in (kept, held):
        assert list(part) == sorted(part, key=PEOPLE.index)


def test_the_seed_alone_decides() -> None:
    held = {sample.identity for sample in hold_out(PEOPLE, 3, seed=0)[1]}
    backwards = hold_out(PEOPLE[::-1], 3, seed=0)[1]
    assert {sample.identity for sample in backwards} == held
    fewer = hold_out(PEOPLE[:7], 3, seed=0)[1]  # everybody is there, most with one picture
    assert {sample.identity for sample in fewer} == held
    others = [{sample.identity for sample in hold_out(PEOPLE, 3, seed)[1]} for seed in range(1, 10)]
    assert any(other != held for other in others)


def test_two_identities_stay() -> None:
    with pytest.raises(DataError, match=r"5 of 6 training identities .* set calibration_identities to 4 or less"):
        hold_out(PEOPLE, 5, seed=0)
    with pytest.raises(DataError, match=r"2 of 3 training identities .* set calibration_identities to 0$"):
        hold_out(PEOPLE[:3], 2, seed=0)


def test_stranger_pairs_are_pairs_of_two_people() -> None:
    samples = PEOPLE[:11]
    loop = [(a, b) for n, a in enumerate(samples) for b in samples[:n] if a.identity != b.identity]
    assert stranger_pairs(samples) == len(loop) > 0
    assert stranger_pairs(()) == 0
