"""Whether settings and training pictures go together: everything that does not, at once, and what to set instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from training.config import Config, ConfigError, Misfit
from training.data.dataset import Sample
from training.data.holdout import FEWEST, hold_out, stranger_pairs
from training.retrieval.calibration import FEWEST_PAIRS, doubt

HELD_OUT_SHARE = 4  # one in so many people is proposed to be held out where more were asked for than fit


def check_fit(config: Config, train: Sequence[Sample], processes: int = 1, earlier: Misfit | None = None) -> None:
    """Raise Misfit unless the people of the training part are enough for what is held out and for a batch.

    Args:
        train: of two people at least.
        processes: that share out a batch, each as many identities.
        earlier: why the settings do not fit each other; `config` has these mended.

    Raises:
        Misfit: naming everything that does not fit, the earlier included, and settings with which it does.
        ConfigError: there are more processes than people.
    """
    people = len({sample.identity for sample in train})
    if processes > people:
        raise ConfigError(f"{processes} processes cannot share {people} people to learn: start {people} or less")
    problems, remedy = list(earlier.problems if earlier else ()), dict[str, Any](earlier.remedy if earlier else {})
    held_out, batch = config.calibration_identities, config.identities
    if people - held_out < max(FEWEST, batch, processes) and (fewer := _fewer(config, train, processes)) < held_out:
        few = f" ({doubted})" if (doubted := doubt(fewer)) else ""
        problems.append(
            f"calibration_identities is {held_out}, and the training part has {people} people: too few would be left"
            f"{few}"
        )
        held_out = remedy["calibration_identities"] = fewer
    left = people - held_out
    if batch > left:
        problems.append(f"identities is {batch}, the people of a batch, and there are {left} to learn")
    elif batch % processes:
        problems.append(
            f"identities is {batch}: {processes} processes share a batch and need a multiple of {processes}"
        )
    if batch > left or batch % processes:
        remedy["identities"] = max(1, min(batch, left) // processes) * processes
    if problems:
        raise Misfit(problems, remedy, replace(config, **remedy))


def costly(config: Config, train: Sequence[Sample]) -> str | None:
    """What is to be said where more than a quarter of the people are held out, and so not learnt from."""
    people, held_out = len({sample.identity for sample in train}), config.calibration_identities
    quarter = max(2, people // HELD_OUT_SHARE)
    if held_out <= quarter:
        return None
    return (
        f"{held_out} of {people} people are held out for the match distance, {people - held_out} are left to learn "
        f"from: --set calibration_identities={quarter} holds out a quarter"
    )


def _fewer(config: Config, train: Sequence[Sample], processes: int) -> int:
    """How many people can be held out instead: none where their pictures would be too few to measure on."""
    people = len({sample.identity for sample in train})
    share = min(config.calibration_identities, people // HELD_OUT_SHARE, people - processes)
    if share < 2:
        return 0
    _, held_out = hold_out(train, share, config.seed)
    return share if stranger_pairs(held_out) >= FEWEST_PAIRS else 0
