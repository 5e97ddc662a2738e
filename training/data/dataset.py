"""What every data set is to the rest of the package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

JUNK = -1  # a detection that is no person, or a part of one: ignored by the protocol
DISTRACTOR = 0  # a person who is no query: counts as a wrong answer
UNKNOWN_CAMERA = -1  # equals no camera, not even another unknown one


class DataError(ValueError):
    """The data set is not what it should be; the message says what is wrong and what to do."""


@dataclass(frozen=True)
class Sample:
    """One picture of one person: `identity` and `camera` as the data set numbers them, `size` of the file in bytes."""

    name: str
    identity: int
    camera: int
    size: int
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Dataset:
    """The three parts of a re-identification benchmark; identities of `train` are not in the others."""

    name: str
    train: tuple[Sample, ...]
    query: tuple[Sample, ...]
    gallery: tuple[Sample, ...]
    left_out: int = 0  # junk and distractors of the train part: nobody can be learnt from them
    multi_query: tuple[Sample, ...] = ()  # every picture of the queries' identities and cameras, where there are such
    notes: tuple[str, ...] = ()  # what a user should know before hours of training: a sentence each


def short_name(name: str) -> str:
    """A data set's name as a part of file names: its letters and digits, in lower case ("market1501")."""
    return "".join(letter for letter in name.lower() if letter.isalnum()) or "data"
