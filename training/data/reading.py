"""Every data set through one door: `read(path)` looks what is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from training.data import cuhk03, dukemtmc, flat, folders, market1501, parts, table
from training.data.dataset import DataError, Dataset, readable

Layout = Literal["market1501", "dukemtmc", "cuhk03-labeled", "cuhk03-detected", "folders", "flat", "csv"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
READERS: dict[Layout, Callable[[Path, bool], Dataset]] = {
    "market1501": market1501.read,
    "dukemtmc": dukemtmc.read,
    "cuhk03-labeled": partial(cuhk03.read, crops="labeled"),
    "cuhk03-detected": partial(cuhk03.read, crops="detected"),
    "folders": folders.read,
    "flat": flat.read,
    "csv": table.read,
}
SHOWN = 5  # names of a folder that is no data set


def read(path: Path | str, layout: Layout | None = None, *, ignore_cameras: bool = False) -> Dataset:
    """Read and check a data set.

    Args:
        path: a folder, or a CSV file.
        layout: how it is laid out; found out by looking where it is not given, and then the first of the notes.
        ignore_cameras: take every camera as unknown, so that pictures of one camera match.

    Raises:
        DataError: it is no data set, or not a sound one; the message says what is wrong.
    """
    root = Path(path)
    if layout is not None:
        return READERS[layout](root, ignore_cameras)
    found = find_layout(root)
    data = READERS[found](root, ignore_cameras)
    return replace(data, notes=(f"{readable(str(root))} is read as {found}", *data.notes))


def find_layout(root: Path) -> Layout:
    """What a path looks like.

    Raises:
        DataError: like nothing that can be read, or like CUHK03 without saying which of its two sets is meant.
    """
    if root.is_file():
        if root.suffix.lower() == ".csv":
            return "csv"
        raise DataError(f"{root} is a file, but no .csv: give a CSV file, or the folder of a data set")
    if not root.is_dir():
        raise DataError(f"{root} does not exist: give the folder of a data set, or a CSV file")
    if cuhk03.find_original(root) or any(parts.holds(root / crops, parts.TRAIN) for crops in cuhk03.CROPS):
        return _which_cuhk03(root)
    if parts.holds(root, parts.TRAIN) or parts.holds(root, parts.GALLERY):
        return _by_names(root)
    own: Layout | None = None
    if folders.is_split(root) or folders.holds_identities(root):
        own = "folders"
    elif flat.is_flat(root):
        own = "flat"
    if own is not None:
        if told := next((file for file in sorted(root.glob("*.csv")) if table.holds_pictures(file)), None):
            raise DataError(
                f"{root} holds {readable(told.name)}, which tells who is on the pictures: give that file as the data "
                f"set, or say --layout {own} to go by folders and names alone"
            )
        return own
    raise DataError(_nothing_found(root))


def _by_names(root: Path) -> Layout:
    """Which benchmark names its pictures as the train part does."""
    for name in parts.file_names(root, parts.TRAIN):
        if market1501.MARKET1501.pattern.match(name):
            return "market1501"
        if dukemtmc.DUKEMTMC.pattern.match(name):
            return "dukemtmc"
        if cuhk03.PATTERN.match(name):
            return _which_cuhk03(root)
    return "market1501"  # whose reader says what is missing


def _which_cuhk03(root: Path) -> Layout:
    original = cuhk03.find_original(root) is not None
    there = [crops for crops in cuhk03.CROPS if not original and (root / crops).is_dir()]
    named = [crops for crops in cuhk03.CROPS if crops in root.resolve().name.lower()]
    match there or named:
        case ["labeled"]:
            return "cuhk03-labeled"
        case ["detected"]:
            return "cuhk03-detected"
    raise DataError(f"{root} is CUHK03, which is two sets: say --layout cuhk03-labeled or --layout cuhk03-detected")


def _nothing_found(root: Path) -> str:
    names = sorted(path.name for path in root.iterdir())
    holds = ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "") if names else "nothing"
    return (
        f"{root} is no data set: there is no {', '.join(parts.PARTS)} (folders or zips: market1501, dukemtmc, cuhk03), "
        f"no labeled or detected with these, no {cuhk03.ORIGINAL}, and no folder per identity with JPEG, PNG or WebP "
        f"pictures, alone or in train, query and gallery (folders), nor pictures named like {flat.EXAMPLE} (flat); it "
        f"holds {holds}"
    )
