"""Float16 vectors in a file without a name: for galleries whose vectors do not fit into memory.

The system keeps what is used of it in its cache and gives that up when memory is wanted. The file is gone with the
process, however that ends; the truth is in the database.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

LEAST_VECTORS = 1024
MOVED_AT_ONCE = 1024
MOST_MAPPED = 256 * 2**20  # bytes that may have been touched before the process lets go of them


class RowFile:
    """Vectors [n, D] by position. Not thread-safe."""

    def __init__(self, dim: int, folder: Path) -> None:
        self._dim = dim
        self._size = dim * np.dtype(np.float16).itemsize
        self._descriptor, name = tempfile.mkstemp(dir=folder, prefix="index-")
        os.unlink(name)
        weakref.finalize(self, os.close, self._descriptor)
        self._map: mmap.mmap | None = None
        self._rows: NDArray[np.float16] = np.empty((0, dim), np.float16)
        self._count = 0
        self._touched = 0

    def __len__(self) -> int:
        return self._count

    def view(self) -> NDArray[np.float16]:
        """The vectors themselves; good until the next change."""
        return self._rows[: self._count]

    def reserve(self, count: int) -> None:
        """Makes room for `count` vectors in all. Raises OSError when the disk has none."""
        if count <= len(self._rows):
            return
        os.posix_fallocate(self._descriptor, 0, count * self._size)  # a hole that cannot be filled would kill us
        self._map = mmap.mmap(self._descriptor, count * self._size)
        self._rows = np.frombuffer(self._map, np.float16).reshape(count, self._dim)

    def append(self, vectors: NDArray[np.float16]) -> None:
        needed = self._count + len(vectors)
        if needed > len(self._rows):
            self.reserve(max(needed, 2 * len(self._rows), LEAST_VECTORS))
        self._rows[self._count : needed] = vectors
        self._count = needed
        self.touched(len(vectors))

    def keep(self, mask: NDArray[np.bool_]) -> None:
        """Drops the positions where `mask` is False; the others move together."""
        kept, filled = np.flatnonzero(mask), 0
        for start in range(0, len(kept), MOVED_AT_ONCE):
            part = self._rows[kept[start : start + MOVED_AT_ONCE]]
            self._rows[filled : filled + len(part)] = part
            filled += len(part)
            self.touched(2 * len(part))
        self._rows[filled : self._count] = 0
        self._count = filled

    def touched(self, count: int) -> None:
        """So many vectors were used; now and then the pages are given back, which stay in the system's cache."""
        self._touched += count * max(self._size, mmap.PAGESIZE)
        if self._touched > MOST_MAPPED and self._map is not None:
            self._map.madvise(mmap.MADV_DONTNEED)
            self._touched = 0
