"""One's own pictures in one folder, whose names tell person and camera as the benchmarks' do."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from training.data.checks import checked
from training.data.dataset import DISTRACTOR, JUNK, DataError, Dataset, number_in, readable
from training.data.own import Picture, build, divide, is_picture, strays

# Market-1501's 0002_c1s1_000451_03.jpg, DukeMTMC-reID's 0001_c2_f0046182.jpg, CUHK03's 0001_c1_1.png.
NAME = re.compile(r"(-1|\d+)_c(\d+)(?:s\d+)?_f?\d+(?:_\d+)?(?:\.\w+)+", re.ASCII)
EXAMPLE = "0002_c1s1_000451_03.jpg"
NOBODY = (JUNK, DISTRACTOR)


def read(path: Path | str, ignore_cameras: bool = False) -> Dataset:
    """Read a folder of pictures named `0002_c1s1_000451_03.jpg` or the like; JPEG, PNG and WebP.

    The identities are divided as `own.divide` says. Junk (-1) and distractors (0000) are nobody to tell apart: a note
    says how many there are.

    Raises:
        DataError: there are no such pictures, or as `own.divide` and `checks.checked` say.
    """
    root = Path(path)
    if not is_flat(root):
        raise DataError(f"{root} is no folder of pictures of which most are named like {EXAMPLE}")
    matches = {file: NAME.fullmatch(file.name) for file in root.iterdir() if is_picture(file)}
    pictures, nobody = [], 0
    for file, match in matches.items():
        if match is None:
            continue
        if number_in(match, 1) in NOBODY:
            nobody += 1
        else:
            pictures.append(Picture(readable(file.name), file, match[1], number_in(match, 2)))
    strangers = sorted(readable(file.name) for file, match in matches.items() if match is None)
    notes = []
    if nobody:
        notes.append(f"{nobody} pictures of junk (-1) and distractors (0000) are not read")
    if strangers:
        notes.append(f"{len(strangers)} pictures not named like {EXAMPLE} are not read, such as {strangers[0]}")
    notes += strays(root, [root])
    data = build(readable(root.resolve().name), divide(root, pictures))
    return checked(root, replace(data, notes=tuple(notes), divided=True), ignore_cameras)


def is_flat(root: Path) -> bool:
    """Whether most of the pictures that lie in a folder itself tell by their names who is on them."""
    if not root.is_dir():
        return False
    names = [file.name for file in root.iterdir() if is_picture(file)]
    return 2 * sum(NAME.fullmatch(name) is not None for name in names) > len(names)
