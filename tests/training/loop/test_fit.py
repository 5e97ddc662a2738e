"""Settings that do not fit the data: all of it is told, and what is proposed does fit."""

from __future__ import annotations

from itertools import product

import pytest

from tests.training.data.drawing import samples
from training.config import Config, ConfigError, Misfit, build_config
from training.data.dataset import Sample
from training.data.holdout import hold_out, stranger_pairs
from training.loop.fit import check_fit, costly


def people(count: int, pictures: int = 7) -> tuple[Sample, ...]:
    return samples(*((identity, 1) for identity in range(1, count + 1) for _ in range(pictures)))


def mended(config: Config, train: tuple[Sample, ...], processes: int = 1) -> Config:
    """The settings that are proposed, found as a user would: by adding what the message says."""
    with pytest.raises(Misfit) as told:
        check_fit(config, train, processes)
    words = str(told.value).partition(": add ")[2].split()
    assert words[::2] == ["--set"] * (len(words) // 2)
    found = build_config(
        "strong", overrides=[f"{k}={v}" for k, v in config.to_dict().items() if k in SET] + words[1::2]
    )
    assert found == told.value.mended
    return found


SET = ("identities", "calibration_identities")


def strong(identities: int, held_out: int) -> Config:
    return build_config("strong", overrides=[f"identities={identities}", f"calibration_identities={held_out}"])


def test_everything_is_told_at_once() -> None:
    with pytest.raises(Misfit) as told:
        check_fit(build_config("strong"), people(6))
    assert str(told.value) == (
        "calibration_identities is 50, and the training part has 6 people: too few would be left; "
        "identities is 16, the people of a batch, and there are 6 to learn: "
        "add --set calibration_identities=0 --set identities=6"
    )


@pytest.mark.parametrize(
    ("count", "identities", "held_out"), list(product((2, 3, 6, 13, 40, 66), (2, 16, 64), (0, 2, 16, 50, 1000)))
)
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_what_is_proposed_fits(count: int, identities: int, held_out: int, processes: int) -> None:
    config, train = strong(identities, held_out), people(count)
    if processes > count:
        with pytest.raises(ConfigError, match=f"{processes} processes cannot share {count} people"):
            check_fit(config, train, processes)
        return
    fits = identities <= count - held_out and identities % processes == 0
    if fits:
        check_fit(config, train, processes)
        return
    found = mended(config, train, processes)
    check_fit(found, train, processes)
    kept, away = hold_out(train, found.calibration_identities, found.seed)
    assert found.identities <= len({sample.identity for sample in kept})
    assert found.identities % processes == 0
    assert found.identities <= max(identities, processes)
    assert found.calibration_identities <= held_out
    if found.calibration_identities != held_out:
        assert not away or stranger_pairs(away) >= 100


def test_people_with_few_pictures_are_not_held_out_in_vain() -> None:
    assert mended(strong(16, 50), people(40, pictures=7)).calibration_identities == 10
    assert mended(strong(16, 50), people(40, pictures=1)).calibration_identities == 0


def test_that_few_held_out_people_measure_no_distance_is_told_with_the_proposal() -> None:
    with pytest.raises(Misfit) as told:
        check_fit(build_config("strong"), people(40))
    assert str(told.value) == (
        "calibration_identities is 50, and the training part has 40 people: too few would be left (10 held-out people "
        "are too few for a match distance that can be trusted, which takes 30: `resight calibrate` measures one on "
        "people that were not learnt): add --set calibration_identities=10"
    )


def test_holding_out_most_people_is_said() -> None:
    assert costly(strong(16, 50), people(70)) == (
        "50 of 70 people are held out for the match distance, 20 are left to learn from: "
        "--set calibration_identities=17 holds out a quarter"
    )
    assert costly(strong(16, 17), people(70)) is None
    assert costly(strong(16, 0), people(3)) is None


def test_what_fits_is_let_through() -> None:
    check_fit(build_config("strong"), people(66))
    with pytest.raises(Misfit, match="identities is 16, the people of a batch"):
        check_fit(strong(16, 0), people(15))
