"""A benchmark as three folders or zips whose file names tell identity and camera.

Market-1501 set the form; DukeMTMC-reID and CUHK03's image folders keep it and differ in their names. A data set
whose three parts are all about as large as the original's is taken for the original, and must then be complete.
"""

from __future__ import annotations

import lzma
import re
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from training.data.dataset import DISTRACTOR, JUNK, DataError, Dataset, Sample, number_in, readable

TRAIN, QUERY, GALLERY = "bounding_box_train", "query", "bounding_box_test"
PARTS = (TRAIN, QUERY, GALLERY)
HAND_DRAWN = "gt_bbox"  # optional: what the multi-query protocol averages
NOBODY = {JUNK, DISTRACTOR}
# What zipfile raises on damage, on encryption, and on what it cannot unpack.
UNPACKING = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, NotImplementedError)

Samples = tuple[Sample, ...]


@dataclass(frozen=True)
class Benchmark:
    """What a published data set is known by."""

    name: str
    pattern: re.Pattern[str]  # of a file name; its groups are identity and camera
    example: str  # a file name, for messages
    counts: tuple[int, int, int]  # pictures of train, query and gallery


def read_parts(root: Path, benchmark: Benchmark) -> Dataset:
    """Read `bounding_box_train`, `query` and `bounding_box_test`, and `gt_bbox` where there is one.

    Junk and distractors of the train part are left out. The split is not checked yet: `checks.checked` does.

    Raises:
        DataError: a part is missing or empty or holds a name twice, or a data set of the original's size has
            lost pictures.
    """
    if not root.is_dir():
        raise DataError(f"{root} is no folder: give the one that holds {', '.join(PARTS)} (folders or zips)")
    everything, query, gallery = (_read_part(root, part, benchmark) for part in PARTS)
    original = check_counts(root, benchmark, everything, query, gallery)
    train = tuple(sample for sample in everything if sample.identity not in NOBODY)
    asked = {(sample.identity, sample.camera) for sample in query}
    drawn = _read_part(root, HAND_DRAWN, benchmark) if holds(root, HAND_DRAWN) else ()
    return Dataset(
        name=benchmark.name if original else readable(root.resolve().name),
        train=train,
        query=query,
        gallery=gallery,
        left_out=len(everything) - len(train),
        multi_query=tuple(sample for sample in drawn if (sample.identity, sample.camera) in asked),
    )


def check_counts(root: Path, benchmark: Benchmark, train: Samples, query: Samples, gallery: Samples) -> bool:
    """Whether this is the original: it is meant to be when every part is within a tenth of the original's size.

    Raises:
        DataError: it is meant to be the original and is not complete.
    """
    counts = list(zip(PARTS, (len(train), len(query), len(gallery)), benchmark.counts, strict=True))
    if not all(0.9 * expected < count < 1.1 * expected for _, count, expected in counts):
        return False
    for part, count, expected in counts:
        if count != expected:
            raise DataError(
                f"{root}/{part} holds {count:,} pictures, {benchmark.name} has {expected:,}: "
                "the copy is incomplete or mixed; unpack it again"
            )
    return True


def file_names(root: Path, part: str) -> Iterator[str]:
    """The names of a part's files, without their folders; none where the part is missing."""
    folder, archive = root / part, root / f"{part}.zip"
    if folder.is_dir():
        yield from (path.name for path in folder.rglob("*"))
    elif archive.is_file():
        yield from (PurePosixPath(info.filename).name for info in _open_zip(archive).infolist())


def holds(root: Path, part: str) -> bool:
    """Whether a part is there, as a folder or a zip."""
    return (root / part).is_dir() or (root / f"{part}.zip").is_file()


def _read_part(root: Path, part: str, benchmark: Benchmark) -> Samples:
    folder, archive = root / part, root / f"{part}.zip"
    if folder.is_dir():
        samples = _folder_samples(folder, benchmark.pattern)
    elif archive.is_file():
        samples = _zip_samples(archive, benchmark.pattern)
    else:
        raise DataError(f"{root} has neither {part}/ nor {part}.zip: it is no data set in {benchmark.name}'s layout")
    by_name: dict[str, Sample] = {}
    for sample in samples:
        if by_name.setdefault(sample.name, sample) is not sample:
            raise DataError(f"{root}/{part} holds two pictures named {sample.name}: rename or remove one")
    if not by_name:
        raise DataError(f"{root}/{part} holds no picture named like {benchmark.example}")
    return tuple(by_name[name] for name in sorted(by_name))


def _folder_samples(folder: Path, pattern: re.Pattern[str]) -> Iterable[Sample]:
    for path in folder.rglob("*"):
        if (match := pattern.match(path.name)) and path.is_file():
            yield _sample(match, path.stat().st_size, path.read_bytes)


def _zip_samples(path: Path, pattern: re.Pattern[str]) -> Iterable[Sample]:
    archive = _open_zip(path)
    lock = threading.Lock()  # a ZipFile has one file position

    def reader(member: str) -> Callable[[], bytes]:
        def read_member() -> bytes:
            try:
                with lock:
                    return archive.read(member)
            except UNPACKING as error:
                raise ValueError(f"cannot be unpacked from {path} ({error})") from error

        return read_member

    for info in archive.infolist():
        match = pattern.match(PurePosixPath(info.filename).name)
        if match and not info.filename.startswith("__MACOSX"):
            yield _sample(match, info.file_size, reader(info.filename))


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except UNPACKING as error:
        raise DataError(f"{path} is no readable zip ({error}): copy it again") from error


def _sample(match: re.Match[str], size: int, read: Callable[[], bytes]) -> Sample:
    return Sample(readable(match.string), number_in(match, 1), number_in(match, 2), size, read)
