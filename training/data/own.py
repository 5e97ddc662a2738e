"""One's own pictures: identities are names, cameras may be unknown, and the split is made where none is given."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar, get_args

from training.data.dataset import DataError, Dataset, Sample, readable

Split = Literal["train", "query", "gallery"]
SPLITS: tuple[Split, ...] = get_args(Split)
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
A_SIDE = 2  # identities that learning needs, and telling apart
FEWEST = 2 * A_SIDE
HALF = bytes([0x80])  # of all hashes are smaller

Divided = dict[Split, list["Picture"]]


@dataclass(frozen=True)
class Picture:
    """A file, its name in the data set, and who is on it."""

    name: str
    path: Path
    identity: str
    camera: int

    def sample(self, numbers: Mapping[str, int]) -> Sample:
        size = self.path.stat().st_size
        return Sample(self.name, numbers[self.identity], self.camera, size, self.path.read_bytes, self.path)


Seen = TypeVar("Seen", Picture, Sample)


def strays(root: Path, places: Sequence[Path]) -> tuple[str, ...]:
    """A note on the files in some folders of `root` that are not taken for pictures; hidden ones do not count."""
    found = sorted(
        readable(str(path.relative_to(root)))
        for place in places
        for path in place.glob("[!.]*")
        if path.is_file() and not is_picture(path)
    )
    kinds = ", ".join(sorted(SUFFIXES))
    return (f"files that are no {kinds} are not read ({len(found)}), such as {found[0]}",) if found else ()


def is_picture(path: Path) -> bool:
    """Whether a file is taken for a picture: by its ending, and not hidden."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def build(name: str, parts: Mapping[Split, Sequence[Picture]], cameras: Mapping[int, str] | None = None) -> Dataset:
    """The data set of the given parts, each in the order of its names.

    Identities are numbered from 1 in the order of their names: 0 and -1 mean distractors and junk. `cameras` are the
    names of cameras that have other names than their numbers.
    """
    people = sorted({picture.identity for part in SPLITS for picture in parts[part]})
    numbers = {identity: number for number, identity in enumerate(people, start=1)}
    train, query, gallery = (
        tuple(picture.sample(numbers) for picture in sorted(parts[part], key=lambda picture: picture.name))
        for part in SPLITS
    )
    people_names = {number: identity for identity, number in numbers.items()}
    return Dataset(
        name=name, train=train, query=query, gallery=gallery, identities=people_names, cameras=dict(cameras or {})
    )


def divide(root: Path, pictures: Sequence[Picture]) -> Divided:
    """About half of the identities to learn; of the others some pictures ask and the rest answers.

    A hash of its name decides where an identity goes: the split is the same everywhere, and neither a picture nor an
    identity that is added moves the others. Only where a side would have less than two identities, those of the other
    side whose hashes are nearest to the middle go there. Of a test identity the first picture of each camera is a
    query; a camera's only picture stays in the gallery, unless no camera has two. Pictures without a camera count as
    one camera's.

    Raises:
        DataError: fewer than four identities.
    """
    people: dict[str, list[Picture]] = defaultdict(list)
    for picture in sorted(pictures, key=lambda picture: picture.name):
        people[picture.identity].append(picture)
    if len(people) < FEWEST:
        raise DataError(
            f"{root} holds pictures of {len(people)} {'identity' if len(people) == 1 else 'identities'}: {FEWEST} at "
            "least are needed, half to learn and half to test; add people, or say yourself which pictures are "
            f"{', '.join(SPLITS)}"
        )
    hashes = {identity: hashlib.sha256(identity.encode()).digest() for identity in people}
    order = sorted(people, key=hashes.__getitem__)
    below = sum(value < HALF for value in hashes.values())
    half = min(max(below, A_SIDE), len(order) - A_SIDE)
    divided: Divided = {split: [] for split in SPLITS}
    divided["train"] = [picture for identity in order[:half] for picture in people[identity]]
    for identity in order[half:]:
        queries = queries_of(people[identity])
        divided["query"] += queries
        divided["gallery"] += [picture for picture in people[identity] if picture not in queries]
    return divided


def queries_of(pictures: Sequence[Seen]) -> list[Seen]:
    """The pictures of one person that ask, of all in the order of their names: see `divide`."""
    cameras: dict[int, list[Seen]] = defaultdict(list)
    for picture in pictures:
        cameras[picture.camera].append(picture)
    first = [taken[0] for taken in cameras.values() if len(taken) > 1]
    return first or list(pictures[:1] if len(pictures) > 1 else [])
