"""The CUHK03 reader (Li et al., "DeepReID", CVPR 2014) in the new protocol (Zhong et al., CVPR 2017).

It has two sets of crops of the same people, cut by hand (labeled) and by a detector (detected), either as image
folders (`labeled/` and `detected/`, each with the three parts of Market-1501, names `0001_c1_1.png`) or as the
original: `cuhk-03.mat` with the protocol's two split files beside it. Cameras are 1 and 2, those of a pair; the
five pairs saw different people.
"""

from __future__ import annotations

import io
import re
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.data.checks import checked
from training.data.dataset import DataError, Dataset, Sample, readable
from training.data.parts import Benchmark, check_counts, read_parts

Crops = Literal["labeled", "detected"]
CROPS: tuple[Crops, ...] = get_args(Crops)
PATTERN = re.compile(r"(\d{4,})_c(\d+)_\d+.*\.png$", re.IGNORECASE)
CUHK03: dict[Crops, Benchmark] = {
    "labeled": Benchmark("CUHK03 (labeled)", PATTERN, "0001_c1_1.png", (7_368, 1_400, 5_328)),
    "detected": Benchmark("CUHK03 (detected)", PATTERN, "0001_c1_1.png", (7_365, 1_400, 5_332)),
}
ORIGINAL = "cuhk-03.mat"
SPLIT_FILE = "cuhk03_new_protocol_config_{}.mat"
FIELDS = ("train_idx", "query_idx", "gallery_idx", "labels", "filelist", "camId")
# Camera pair, person of the pair, camera of the pair, and one of the person's ten pictures, all from 1.
CELL_NAME = re.compile(r"(\d+)_(\d+)_(\d+)_(\d+)\.png$")


def read(path: Path | str, ignore_cameras: bool = False, *, crops: Crops) -> Dataset:
    """Read one of CUHK03's two sets: from `cuhk-03.mat` where that is, else from `crops` below `path`, else from
    `path` itself.

    Raises:
        DataError: a file or field is missing or not what it should be, or as `parts.read_parts` and
            `checks.checked` say.
    """
    root = Path(path)
    if original := find_original(root):
        return checked(root, _read_original(root, original, crops), ignore_cameras)
    folder = root / crops if (root / crops).is_dir() else root
    return checked(folder, read_parts(folder, CUHK03[crops]), ignore_cameras)


def find_original(root: Path) -> Path | None:
    """The original's file in `root` or, as it is unpacked, in `cuhk03_release` there."""
    return next((path for path in (root / ORIGINAL, root / "cuhk03_release" / ORIGINAL) if path.is_file()), None)


def _read_original(root: Path, original: Path, crops: Crops) -> Dataset:
    benchmark = CUHK03[crops]
    split = _read_split(root, original, crops)
    cells = _Cells(original, crops)
    names = [str(np.asarray(entry).item()) for entry in split["filelist"]]
    labels, cameras = split["labels"], split["camId"]
    if not len(names) == len(labels) == len(cameras):
        raise DataError(
            f"{root}: the {crops} split has {len(names):,} names in filelist, {len(labels):,} labels and "
            f"{len(cameras):,} camId: one each a picture is needed; copy its file again"
        )

    def part(field: str) -> tuple[Sample, ...]:
        indices = [int(index) - 1 for index in split[field]]  # MATLAB counts from 1
        if not all(0 <= index < len(names) for index in indices):
            raise DataError(f"{root}: {field} of the {crops} split points beyond its {len(names):,} pictures")
        samples = [cells.sample(names[index], int(labels[index]), int(cameras[index])) for index in indices]
        return tuple(sorted(samples, key=lambda sample: sample.name))

    train, query, gallery = part("train_idx"), part("query_idx"), part("gallery_idx")
    complete = check_counts(root, benchmark, train, query, gallery)
    return Dataset(benchmark.name if complete else readable(root.resolve().name), train, query, gallery)


def _read_split(root: Path, original: Path, crops: Crops) -> dict[str, NDArray[Any]]:
    """The fields of a split file, flat."""
    name = SPLIT_FILE.format(crops)
    path = next((folder / name for folder in (root, original.parent) if (folder / name).is_file()), None)
    if path is None:
        raise DataError(
            f"{root} has {ORIGINAL} and no {name}: put the new protocol's split file there (it comes with the "
            "code of Zhong et al., evaluation/data/CUHK03)"
        )
    try:
        from scipy.io import loadmat  # type: ignore[import-untyped]
        from scipy.io.matlab import MatReadError  # type: ignore[import-untyped]
    except ImportError as error:
        raise DataError(_missing_package(error)) from error
    try:
        content = loadmat(path)
    except (MatReadError, zlib.error, ValueError, TypeError, OSError, NotImplementedError) as error:
        raise DataError(f"{path} is no readable .mat file ({error}): copy it again") from error
    if absent := [field for field in FIELDS if field not in content]:
        raise DataError(f"{path} has no {', '.join(absent)}: it is no split file of the new protocol")
    return {field: np.asarray(content[field]).ravel() for field in FIELDS}


class _Cells:
    """The pictures in `cuhk-03.mat`: HDF5, a cell array of five camera pairs, each of people x 10 pictures.

    HDF5 holds MATLAB's arrays transposed: a pair is [10, people] and a picture [3, width, height].
    """

    def __init__(self, path: Path, crops: Crops) -> None:
        try:
            import h5py  # type: ignore[import-untyped]

            self.file = h5py.File(path, "r")
        except ImportError as error:
            raise DataError(_missing_package(error)) from error
        except OSError as error:
            raise DataError(f"{path} is no readable MATLAB 7.3 file ({error}): copy it again") from error
        if crops not in self.file:
            raise DataError(f"{path} holds no {crops!r}: it is not CUHK03's file")
        self.path = path
        self.pairs = [self.file[reference][()] for reference in self.file[crops][()].ravel()]
        self.lock = threading.Lock()

    def sample(self, name: str, identity: int, camera: int) -> Sample:
        match = CELL_NAME.match(name)
        if match is None:
            raise DataError(f"{self.path.name}: the split file names a picture {name!r}, not like 1_001_1_01.png")
        pair, person, _, picture = (int(number) - 1 for number in match.groups())
        try:
            # The names count from 1; NumPy would take what is below for a place from the end.
            cell = self.file[self.pairs[pair][picture, person]] if min(pair, person, picture) >= 0 else None
        except IndexError:
            cell = None
        if cell is None or len(cell.shape) != 3:  # an empty cell holds its shape, a list of zeros
            raise DataError(f"{self.path} has no picture {name}, which the split file names: the two do not fit")
        return Sample(name, identity, camera, int(np.prod(cell.shape)), self.reader(cell))

    def reader(self, cell: Any) -> Callable[[], bytes]:
        """Reads the picture, as lossless PNG."""

        def read() -> bytes:
            with self.lock:
                pixels = np.asarray(cell[()], np.uint8)
            encoded = io.BytesIO()
            Image.fromarray(np.ascontiguousarray(pixels.T)).save(encoded, "PNG", compress_level=1)
            return encoded.getvalue()

        return read


def _missing_package(error: ImportError) -> str:
    return f"reading {ORIGINAL} needs h5py and scipy ({error}): install resight[train]"
