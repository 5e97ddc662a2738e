"""What every data set is to the rest of the package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

JUNK = -1  # a detection that is no person, or a part of one: ignored by the protocol
DISTRACTOR = 0  # a person who is no query: counts as a wrong answer


class DataError(ValueError):
    """The data set is not what it should be; the message says what is wrong and what to do."""


@dataclass(frozen=True)
class Sample:
    """One picture of one person: `identity` and `camera` as the data set numbers them."""

    name: str
    identity: int
    camera: int
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Dataset:
    """The three parts of a re-identification benchmark; identities of `train` are not in the others."""

    name: str
    train: tuple[Sample, ...]
    query: tuple[Sample, ...]
    gallery: tuple[Sample, ...]
