from __future__ import annotations

from dataclasses import replace

import pytest

from tests.training.data.drawing import samples, sound
from training.data.dataset import DataError
from training.data.holdout import hold_out, only_cameras, stranger_pairs, without_cameras

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


def test_an_excluded_camera_is_not_learnt_from_and_still_tested_on() -> None:
    data = without_cameras(replace(sound(), cameras={1: "door", 2: "lift"}), ["lift"])
    assert {sample.camera for sample in data.train} == {1}
    assert (data.query, data.gallery) == (sound().query, sound().gallery)
    assert data.notes == ("2 of 4 training pictures are of excluded cameras (lift): 2 people are left to learn",)


def test_only_some_cameras_ask_and_answer() -> None:
    whole = replace(sound(), multi_query=samples((3, 1), (3, 2), start=40))
    data = only_cameras(whole, ["2"])
    for part in (data.train, data.query, data.gallery, data.multi_query):
        assert {sample.camera for sample in part} <= {2}
    assert len(data.gallery) == 3
    assert data.name == "sound, only camera 2"
    assert only_cameras(whole, ["1", "2"]) == replace(whole, name="sound, only cameras 1, 2")


def test_without_names_nothing_changes() -> None:
    assert without_cameras(sound(), []) == only_cameras(sound(), []) == sound()


def test_cameras_that_are_not_there_are_named() -> None:
    with pytest.raises(DataError, match=r"no picture is of a camera 'c1'; there are 1, 2$"):
        only_cameras(sound(), ["1", "c1"])
    with pytest.raises(DataError, match="no camera is known"):
        without_cameras(replace(sound(), train=samples((1, -1), (2, -1)), query=(), gallery=()), ["1"])
    with pytest.raises(DataError, match=r"without cameras 1, 2, 0 people are left, and training needs 2"):
        without_cameras(sound(), ["1", "2"])
