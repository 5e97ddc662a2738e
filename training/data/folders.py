"""One's own pictures as a folder per identity: `anna/*.jpg`, or so in each of `train/`, `query/` and `gallery/`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from training.data.checks import checked
from training.data.dataset import UNKNOWN_CAMERA, DataError, Dataset, number_in, readable
from training.data.own import SPLITS, Picture, build, divide, is_picture, strays

CAMERA = re.compile(r"[^_]+_c(\d+)(?:s\d+)?_")  # as in the benchmarks' names: 0002_c1s1_000451_03.jpg


def read(path: Path | str, ignore_cameras: bool = False) -> Dataset:
    """Read a folder of folders, one an identity, named as one likes; JPEG, PNG and WebP.

    Without `train/`, `query/` and `gallery/` the identities are divided as `own.divide` says. A camera is known
    where a file's name tells it as the benchmarks' do (`…_c2_…`, `…_c2s1_…`).

    Raises:
        DataError: there are no such folders, or as `own.divide` and `checks.checked` say.
    """
    root = Path(path)
    if not root.is_dir():
        raise DataError(f"{root} is no folder: give the one that holds a folder per identity")
    name = readable(root.resolve().name)
    if not is_split(root):
        data = build(name, divide(root, list(_pictures(root))))
        return checked(root, replace(data, notes=_left_out(root, [root]), divided=True), ignore_cameras)
    for split in SPLITS:
        if not (root / split).is_dir():
            raise DataError(f"{root} has no {split}/: {', '.join(SPLITS)} are needed, each with a folder per identity")
    data = build(name, {split: list(_pictures(root / split)) for split in SPLITS})
    return checked(root, replace(data, notes=_left_out(root, [root / split for split in SPLITS])), ignore_cameras)


def is_split(root: Path) -> bool:
    """Whether any of the parts is there, as a folder of folders."""
    return any(holds_identities(root / split) for split in SPLITS)


def holds_identities(root: Path) -> bool:
    """Whether some folder in `root` has a picture in it."""
    return next(_pictures(root), None) is not None


def _left_out(root: Path, places: Sequence[Path]) -> tuple[str, ...]:
    """Notes on what is not read: pictures beside the identities' folders and in folders within these, other files."""
    beside = [path for place in places for path in place.iterdir() if is_picture(path)]
    within = [
        path
        for place in places
        for path in place.glob("[!.]*/[!.]*/**/[!.]*")
        if is_picture(path) and len(path.relative_to(place).parts) > 2
    ]
    said = (
        (beside, "beside the identities' folders", "into the folder of their person"),
        (within, "in folders within an identity's folder", "up"),
    )
    misplaced = tuple(
        f"pictures {where} are not read ({len(found)}), such as {readable(str(min(found).relative_to(root)))}: "
        f"move them {whither}"
        for found, where, whither in said
        if found
    )
    people = [path for place in places for path in place.glob("[!.]*") if path.is_dir()]
    return misplaced + strays(root, [*dict.fromkeys([root, *places]), *people])


def _pictures(root: Path) -> Iterator[Picture]:
    for path in root.glob("[!.]*/[!.]*"):
        if is_picture(path):
            camera = CAMERA.match(path.name)
            yield Picture(
                name=readable(f"{path.parent.name}/{path.name}"),
                path=path,
                identity=readable(path.parent.name),
                camera=number_in(camera, 1) if camera else UNKNOWN_CAMERA,
            )
