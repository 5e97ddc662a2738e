"""Float16 vectors in a file without a name: for galleries whose vectors do not fit into memory.

The system keeps what is used of it in its cache and gives that up when memory is wanted. The file is gone with the
process, however that ends; the truth is in the database. It is read and not mapped: recent Linux maps up to 2 MiB
around each page that is used of a mapped file, which takes longer than the reading and looks like memory in use.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

AHEAD = 4096  # vectors that the file has room for when it has grown
MOVED_AT_ONCE = 1024


class RowFile:
    """Vectors [n, D] by position. Reading may overlap, changes may not."""

    def __init__(self, dim: int, folder: Path) -> None:
        self._dim = dim
        self._size = dim * np.dtype(np.float16).itemsize
        self._descriptor, name = tempfile.mkstemp(dir=folder, prefix="index-")
        os.unlink(name)
        weakref.finalize(self, os.close, self._descriptor)
        self._room = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def reserve(self, count: int) -> None:
        """Makes room for `count` vectors in all. Raises OSError when the disk has none."""
        if count <= self._room:
            return
        try:
            os.posix_fallocate(self._descriptor, 0, count * self._size)
        except OSError:
            os.ftruncate(self._descriptor, self._room * self._size)  # what it got of the disk, others need
            raise
        self._room = count

    def make_room(self, count: int) -> None:
        """As `reserve`, with room ahead where the disk has that; may overlap an `append` that finds its room."""
        if count > self._room:
            try:
                self.reserve(count + AHEAD)
            except OSError:  # for these, there may be room yet
                self.reserve(count)

    def append(self, vectors: NDArray[np.float16]) -> None:
        """Adds vectors [n, D] at the end. Raises OSError when the disk has no room for them."""
        needed = self._count + len(vectors)
        self.make_room(needed)
        self.put(self._count, vectors)
        self._count = needed

    def put(self, position: int, vectors: NDArray[np.float16]) -> None:
        """Overwrites the vectors [n, D] from `position` on."""
        left, offset = _bytes(np.ascontiguousarray(vectors)), position * self._size
        while left:
            written = os.pwrite(self._descriptor, left, offset)
            left, offset = left[written:], offset + written

    def take(self, positions: NDArray[np.int64], into: NDArray[np.float16] | None = None) -> NDArray[np.float16]:
        """A copy of these vectors [n, D], written to `into` where it is given."""
        vectors = np.empty((len(positions), self._dim), np.float16) if into is None else into
        ends = np.flatnonzero(np.diff(positions, append=-1) != 1) + 1  # of runs of neighbours
        start = 0
        for end in ends.tolist():
            self._read(int(positions[start]), vectors[start:end])
            start = end
        return vectors

    def _read(self, position: int, into: NDArray[np.float16]) -> None:
        left, offset = _bytes(into), position * self._size
        while left:
            read = os.preadv(self._descriptor, [left], offset)
            if not read:
                raise OSError("the file of the gallery's vectors is shorter than it was")
            left, offset = left[read:], offset + read

    def blocks(self, size: int) -> Iterator[NDArray[np.float16]]:
        """All vectors in order, `size` at a time; each block is good until the next."""
        room = np.empty((min(size, self._count), self._dim), np.float16)
        for start in range(0, self._count, size):
            block = room[: min(size, self._count - start)]
            self._read(start, block)
            yield block

    def keep(self, mask: NDArray[np.bool_]) -> None:
        """Drops the positions where `mask` is False; the others move together."""
        kept, filled = np.flatnonzero(mask), 0
        for start in range(0, len(kept), MOVED_AT_ONCE):
            moved = self.take(kept[start : start + MOVED_AT_ONCE])
            self.put(filled, moved)
            filled += len(moved)
        blank = np.zeros((MOVED_AT_ONCE, self._dim), np.float16)
        for start in range(filled, self._count, MOVED_AT_ONCE):
            self.put(start, blank[: self._count - start])
        self._count = filled


def _bytes(vectors: NDArray[np.float16]) -> memoryview:
    """Those of a contiguous array, itself."""
    return vectors.reshape(-1).view(np.uint8).data
