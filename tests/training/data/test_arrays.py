from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from training.data.arrays import read_array

ROWS = np.arange(6, dtype=np.float32).reshape(3, 2)


def write_npz(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, ROWS)


def write_objects(path: Path) -> None:
    np.save(path, np.array([{}, "a"], object))


def write_short(path: Path) -> None:
    np.save(path, ROWS)
    path.write_bytes(path.read_bytes()[:-4])


def write_torch(path: Path) -> None:
    torch.save(torch.from_numpy(ROWS), path)


def write_nothing(path: Path) -> None:
    path.write_bytes(b"")


def test_what_was_saved_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", ROWS)
    np.testing.assert_array_equal(read_array(tmp_path / "a.npy"), ROWS)


def write_header(shape: str) -> Callable[[Path], None]:
    """A file of a hundred bytes that promises an array of this shape."""

    def write(path: Path) -> None:
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
        path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())

    return write


HUGE = [
    write_header(shape) for shape in ("(1000000000000, 2048)", "(9223372036854775807, 4)", "(2, 2" + "0" * 50 + ")")
]


@pytest.mark.parametrize(
    "write", [*HUGE, write_npz, write_objects, write_short, write_torch, write_nothing, Path.mkdir, None]
)
def test_another_file_is_named(write: Callable[[Path], object] | None, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    if write is not None:
        write(path)
    with pytest.raises(ValueError, match=rf"^{path} is no readable \.npy file: "):
        read_array(path)
