"""The Market-1501 reader (Zheng et al., "Scalable Person Re-identification: A Benchmark", ICCV 2015).

Names such as `0002_c1s1_000451_03.jpg` tell identity and camera. Any data set in the same layout
(the drawn one of `training.data.synthetic`, one's own) is read by the same code. A data set whose three
parts are all about as large as the original's is taken for the original, and must then be complete.
"""

from __future__ import annotations

import re
import threading
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from training.data.dataset import DISTRACTOR, JUNK, DataError, Dataset, Sample

NAME = re.compile(r"(-1|\d{4,})_c(\d+)s\d+_\d+.*\.jpe?g$", re.IGNORECASE)
PARTS = ("bounding_box_train", "query", "bounding_box_test")
ORIGINAL_NAME = "Market-1501"
ORIGINAL_COUNTS = {"bounding_box_train": 12_936, "query": 3_368, "bounding_box_test": 19_732}
NOBODY = {JUNK, DISTRACTOR}

Samples = tuple[Sample, ...]


def read(path: Path | str) -> Dataset:
    """Read a folder that holds `bounding_box_train`, `query` and `bounding_box_test`, as folders or zips.

    Junk and distractors of the train part are left out.

    Raises:
        DataError: a part is missing or empty, holds a name twice, shares identities with the train part, no
            query has a match, or a data set of the original's size has lost pictures.
    """
    root = Path(path)
    if not root.is_dir():
        raise DataError(f"{root} is no folder: give the one that holds {', '.join(PARTS)} (folders or zips)")
    parts = {part: _read_part(root, part) for part in PARTS}
    _check_counts(root, parts)
    everything, query, gallery = parts.values()
    train = tuple(sample for sample in everything if sample.identity not in NOBODY)
    _check_split(root, train, query, gallery)
    original = all(len(parts[part]) == count for part, count in ORIGINAL_COUNTS.items())
    return Dataset(
        name=ORIGINAL_NAME if original else root.resolve().name,
        train=train,
        query=query,
        gallery=gallery,
        left_out=len(everything) - len(train),
    )


def _read_part(root: Path, part: str) -> Samples:
    folder, archive = root / part, root / f"{part}.zip"
    if folder.is_dir():
        samples = _folder_samples(folder)
    elif archive.is_file():
        samples = _zip_samples(archive)
    else:
        raise DataError(f"{root} has neither {part}/ nor {part}.zip: it is no data set in Market-1501 layout")
    by_name: dict[str, Sample] = {}
    for sample in samples:
        if by_name.setdefault(sample.name, sample) is not sample:
            raise DataError(f"{root}/{part} holds two pictures named {sample.name}: rename or remove one")
    if not by_name:
        raise DataError(f"{root}/{part} holds no picture named like 0002_c1s1_000451_03.jpg")
    return tuple(by_name[name] for name in sorted(by_name))


def _folder_samples(folder: Path) -> Iterable[Sample]:
    for path in folder.rglob("*"):
        if match := NAME.match(path.name):
            yield _sample(match, path.stat().st_size, path.read_bytes)


def _zip_samples(path: Path) -> Iterable[Sample]:
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

    for info in archive.infolist():
        match = NAME.match(PurePosixPath(info.filename).name)
        if match and not info.filename.startswith("__MACOSX"):
            yield _sample(match, info.file_size, reader(info.filename))


def _sample(match: re.Match[str], size: int, read: Callable[[], bytes]) -> Sample:
    return Sample(name=match.string, identity=int(match[1]), camera=int(match[2]), size=size, read=read)


def _check_counts(root: Path, parts: dict[str, Samples]) -> None:
    """Three parts within a tenth of the original's sizes are meant to be the original: then all must be complete."""
    counts = {part: len(samples) for part, samples in parts.items()}
    if not all(0.9 * expected < counts[part] < 1.1 * expected for part, expected in ORIGINAL_COUNTS.items()):
        return
    for part, expected in ORIGINAL_COUNTS.items():
        if counts[part] != expected:
            raise DataError(
                f"{root}/{part} holds {counts[part]:,} pictures, Market-1501 has {expected:,}: "
                "the copy is incomplete or mixed; unpack it again"
            )


def _check_split(root: Path, train: Samples, query: Samples, gallery: Samples) -> None:
    people = {sample.identity for sample in train}
    if len(people) < 2:
        raise DataError(f"{root}/bounding_box_train holds {len(people)} identity: training needs two at least")
    for part, samples in (("query", query), ("gallery", gallery)):
        if shared := people & {sample.identity for sample in samples}:
            raise DataError(f"identity {min(shared):04d} is in train and {part} of {root}: the split must be disjoint")
    cameras: dict[int, set[int]] = {}
    for sample in gallery:
        cameras.setdefault(sample.identity, set()).add(sample.camera)
    if not any(cameras.get(sample.identity, set()) - {sample.camera} for sample in query):
        raise DataError(f"no query of {root} has a match of another camera: nothing can be measured")
