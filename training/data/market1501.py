"""The Market-1501 reader (Zheng et al., "Scalable Person Re-identification: A Benchmark", ICCV 2015).

Names such as `0002_c1s1_000451_03.jpg` tell identity and camera. Any data set in the same layout
(the drawn one of `training.data.synthetic`, one's own) is read by the same code; the counts of the
original are checked where the folder is named as the original's are sized.
"""

from __future__ import annotations

import re
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

from training.data.dataset import DISTRACTOR, JUNK, DataError, Dataset, Sample

NAME = re.compile(r"(-1|\d{4,})_c(\d+)s\d+_\d+.*\.jpe?g$", re.IGNORECASE)
PARTS = ("bounding_box_train", "query", "bounding_box_test")
ORIGINAL_COUNTS = {"bounding_box_train": 12_936, "query": 3_368, "bounding_box_test": 19_732}


def read(path: Path | str) -> Dataset:
    """Read a folder that holds `bounding_box_train`, `query` and `bounding_box_test`, as folders or zips.

    Raises:
        DataError: a part is missing or empty, a split shares identities, a query has no match,
            or a part of the size of the original has lost pictures.
    """
    root = Path(path)
    if not root.is_dir():
        raise DataError(f"{root} is no folder: give the one that holds {', '.join(PARTS)} (folders or zips)")
    train, query, gallery = (_read_part(root, part) for part in PARTS)
    _check_counts(root, {"bounding_box_train": train, "query": query, "bounding_box_test": gallery})
    _check_split(root, train, query, gallery)
    return Dataset(
        name="Market-1501" if len(train) == ORIGINAL_COUNTS["bounding_box_train"] else root.name,
        train=train,
        query=query,
        gallery=gallery,
    )


def _read_part(root: Path, part: str) -> tuple[Sample, ...]:
    folder, archive = root / part, root / f"{part}.zip"
    if folder.is_dir():
        readers = {path.name: path.read_bytes for path in folder.rglob("*") if NAME.match(path.name)}
    elif archive.is_file():
        readers = _zip_readers(archive)
    else:
        raise DataError(f"{root} has neither {part}/ nor {part}.zip: it is no data set in Market-1501 layout")
    if not readers:
        raise DataError(f"{root}/{part} holds no picture named like 0002_c1s1_000451_03.jpg")
    return tuple(_sample(name, readers[name]) for name in sorted(readers))


def _zip_readers(path: Path) -> dict[str, Callable[[], bytes]]:
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise DataError(f"{path} is no readable zip ({error}): copy it again") from error
    lock = threading.Lock()  # a ZipFile has one file position

    def reader(member: str) -> Callable[[], bytes]:
        def read_member() -> bytes:
            with lock:
                return archive.read(member)

        return read_member

    members = [info.filename for info in archive.infolist() if not info.filename.startswith("__MACOSX")]
    return {name: reader(member) for member in members if NAME.match(name := member.rsplit("/", 1)[-1])}


def _sample(name: str, reader: Callable[[], bytes]) -> Sample:
    match = NAME.match(name)
    assert match is not None
    return Sample(name=name, identity=int(match[1]), camera=int(match[2]), read=reader)


def _check_counts(root: Path, parts: dict[str, tuple[Sample, ...]]) -> None:
    """A part within a tenth of the original's size is meant to be the original: then it must be complete."""
    for part, samples in parts.items():
        expected = ORIGINAL_COUNTS[part]
        if 0.9 * expected < len(samples) != expected and len(samples) < 1.1 * expected:
            raise DataError(
                f"{root}/{part} holds {len(samples):,} pictures, Market-1501 has {expected:,}: "
                "the copy is incomplete or mixed; unpack it again"
            )


def _check_split(root: Path, train: tuple[Sample, ...], query: tuple[Sample, ...], gallery: tuple[Sample, ...]) -> None:
    people = {sample.identity for sample in train} - {JUNK, DISTRACTOR}
    if len(people) < 2:
        raise DataError(f"{root}/bounding_box_train holds {len(people)} identity: training needs two at least")
    if shared := people & {sample.identity for sample in query}:
        raise DataError(f"identity {min(shared):04d} is in train and query of {root}: the split must be disjoint")
    cameras: dict[int, set[int]] = {}
    for sample in gallery:
        cameras.setdefault(sample.identity, set()).add(sample.camera)
    if not any(cameras.get(sample.identity, set()) - {sample.camera} for sample in query):
        raise DataError(f"no query of {root} has a match of another camera: nothing can be measured")
