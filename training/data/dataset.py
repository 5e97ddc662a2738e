"""What every data set is to the rest of the package."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

JUNK = -1  # a detection that is no person, or a part of one: ignored by the protocol
DISTRACTOR = 0  # a person who is no query: counts as a wrong answer
UNKNOWN_CAMERA = -1  # equals no camera, not even another unknown one
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
DIGITS = 9  # of an identity's or camera's number: it must fit into an array

Item = TypeVar("Item")


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
    path: Path | None = None  # the file, of one's own pictures


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
    # What one's own people and cameras are called, where that is not their number.
    identities: Mapping[int, str] = field(default_factory=dict)
    cameras: Mapping[int, str] = field(default_factory=dict)
    divided: bool = False  # by the reader, into people to learn and people to test with: nobody told it

    @property
    def is_own(self) -> bool:
        """Whether these are one's own pictures and no benchmark's."""
        return bool(self.identities)

    def identity_name(self, identity: int) -> str:
        """What a person is called: as the benchmarks write it, where the data set has no name for it."""
        return self.identities.get(identity) or (f"{identity:04d}" if identity >= 0 else str(identity))

    def camera_name(self, camera: int) -> str:
        """What a camera is called."""
        return self.cameras.get(camera) or str(camera)


def people(*parts: Iterable[Sample]) -> int:
    """How many people are on the pictures; distractors and junk are none."""
    return len({sample.identity for part in parts for sample in part} - {DISTRACTOR, JUNK})


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """`count` items (or all, where there are fewer) evenly over the sequence: of a sorted data set, every camera and
    many people are among them."""
    return [items[i] for i in np.linspace(0, len(items) - 1, min(count, len(items)), dtype=int)]


def short_name(name: str) -> str:
    """A data set's name as a part of file names: its letters and digits, in lower case ("market1501")."""
    return "".join(letter for letter in name.lower() if letter.isalnum()) or "data"


def readable(name: str) -> str:
    """A file's name as text that can be printed and hashed: bytes that are no UTF-8 are written as \\xNN, and so are
    line breaks and what else commands a terminal."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def number_in(match: re.Match[str], group: int) -> int:
    """The number in a part of a picture's name.

    Raises:
        DataError: it has more than nine digits.
    """
    if len(match[group]) > DIGITS:
        raise DataError(f"{readable(match.string)} has a number of more than {DIGITS} digits in its name: rename it")
    return int(match[group])
