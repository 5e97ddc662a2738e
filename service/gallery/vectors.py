"""The float16 vectors, by position, and exact comparison with them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from service.gallery.growing import Column
from service.gallery.products import BLOCK, Products
from service.gallery.rowfile import RowFile

MEASURED_AT_ONCE = 1024  # 4 MiB at D = 2048
SCATTERED = 200  # passing over so many vectors costs as much as copying one


class _Codes:
    """Vectors [n, D] by position in FAISS's scalar quantizer at fp16. Not thread-safe.

    It and not a flat float32 index: the search of one query is bound by memory traffic, and half of the bytes take two
    thirds of the time. Many queries at once go through `Products`.
    """

    def __init__(self, dim: int) -> None:
        self._faiss = _codes(dim)

    def __len__(self) -> int:
        return int(self._faiss.ntotal)

    def take(self, positions: NDArray[np.int64], into: NDArray[np.float16] | None = None) -> NDArray[np.float16]:
        # NumPy's other mode, which checks the positions, copies twice.
        vectors: NDArray[np.float16] = np.take(_view(self._faiss), positions, axis=0, out=into, mode="clip")
        return vectors

    def put(self, position: int, vectors: NDArray[np.float16]) -> None:
        _view(self._faiss)[position : position + len(vectors)] = vectors

    def blocks(self, size: int) -> Iterator[NDArray[np.float16]]:
        view = _view(self._faiss)
        return (view[start : start + size] for start in range(0, len(view), size))

    def reserve(self, count: int) -> None:
        codes = self._faiss.codes
        codes.resize(count * self._faiss.sa_code_size())
        codes.resize(0)  # keeps the block: FAISS shows Python a vector without its reserve()

    def append(self, vectors: NDArray[np.float16]) -> None:
        self._faiss.add_sa_codes(np.ascontiguousarray(vectors).view(np.uint8))

    def keep(self, mask: NDArray[np.bool_]) -> None:
        dropped = np.packbits(~mask, bitorder="little")
        self._faiss.remove_ids(faiss.IDSelectorBitmap(dropped))

    def search(
        self, query: NDArray[np.float32], k: int, mask: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        parameters = None
        if mask is not None:
            bits = np.packbits(mask, bitorder="little")
            parameters = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits))
        squared, positions = self._faiss.search(query[np.newaxis], k, params=parameters)
        found = positions[0] >= 0
        return positions[0][found], squared[0][found]


class Vectors:
    """Float16 vectors of unit length [n, D], as stored: in memory, or in a file in `folder`. Not thread-safe.

    In memory they take 2 D + 4 bytes each, 4 GB for a million at D = 2048. `reserve` allocates once; where more is
    appended than was reserved, they move to a block of twice the size: three times the memory while they move, of
    which what nothing was written to yet costs addresses only.
    """

    def __init__(self, dim: int, threads: int = 1, folder: Path | None = None) -> None:
        self.dim = dim
        self._rows: _Codes | RowFile = _Codes(dim) if folder is None else RowFile(dim, folder)
        self._products = Products(threads)
        self._squares = Column(np.float32)
        self._ruler = _Ruler(dim)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def scanned(self) -> bool:
        """Whether `search` is faster for one query than `compare`."""
        return isinstance(self._rows, _Codes)

    def reserve(self, count: int) -> None:
        """Makes room for `count` vectors in all; to be called while there are none."""
        self._rows.reserve(count)
        self._squares.reserve(count)

    def make_room(self, count: int) -> None:
        """Has the file, if that is where they are, grow for `count` vectors in all. Raises OSError."""
        if isinstance(self._rows, RowFile):
            self._rows.make_room(count)

    def append(self, vectors: NDArray[np.float16]) -> None:
        """Adds vectors [n, D] at the end. Raises OSError when the disk has no room for them."""
        self._rows.append(vectors)
        self._squares.extend(self._products.squares(vectors))

    def replace(self, position: int, vector: NDArray[np.float16]) -> None:
        """Overwrites one vector [D]."""
        self._rows.put(position, vector[np.newaxis])
        self._squares.values[position] = self._products.squares(vector[np.newaxis])[0]

    def blank(self, position: int) -> None:
        """Overwrites a vector that was erased with zeros: until others take its place, it would stay on a disk."""
        self._rows.put(position, np.zeros((1, self.dim), np.float16))
        self._squares.values[position] = 0

    def stored(self, positions: NDArray[np.int64]) -> NDArray[np.float16]:
        """A copy of these vectors [n, D], as they were given."""
        return self._rows.take(positions)

    def keep(self, mask: NDArray[np.bool_]) -> None:
        """Drops the positions where `mask` is False; the others move together."""
        self._rows.keep(mask)
        self._squares.keep(mask)

    def search(
        self, query: NDArray[np.float32], k: int, mask: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The k nearest positions and their squared distances, ascending; `mask` [n] says which count."""
        assert isinstance(self._rows, _Codes), "vectors in a file are compared"
        return self._rows.search(query, k, mask)

    def compare(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """The squared distances [m, n] of queries [m, D] to all vectors: |a|² + |b|² - 2ab, in float32."""
        squared = self._products.of(self._rows.blocks(BLOCK), len(self), queries)
        np.multiply(squared, -2, out=squared)
        squared += self._squares.values
        squared += np.einsum("ij,ij->i", queries, queries)[:, np.newaxis]
        return squared

    def measure(self, query: NDArray[np.float32], positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Squared distances [n] of the query [D] to these positions, by the same float32 operations for every pair.

        So the same pair has the same distance whatever is measured beside it, before and after a restart.
        """
        if self.scanned and SCATTERED * len(positions) > len(self):
            return self._picked_out(query, positions)
        squared = np.empty(len(positions), np.float32)
        for start in range(0, len(positions), MEASURED_AT_ONCE):
            part = slice(start, start + MEASURED_AT_ONCE)
            squared[part] = self._ruler.measure(query, self._rows, positions[part])
        return squared

    def _picked_out(self, query: NDArray[np.float32], positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Goes over all vectors for those few: in a small gallery that takes less time than copying them together."""
        mask = np.zeros(len(self), np.bool_)
        mask[positions] = True
        found, near = self.search(query, int(np.count_nonzero(mask)), mask)
        squared = np.empty(len(self), np.float32)
        squared[found] = near
        return squared[positions]


class _Ruler(threading.local):
    """Measures a few vectors. Every thread has its own, with room that is used again: new pages cost more than that."""

    def __init__(self, dim: int) -> None:
        self._codes = _codes(dim)

    def measure(
        self, query: NDArray[np.float32], rows: _Codes | RowFile, positions: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Squared distances [n] of the query [D] to the vectors at these positions of `rows`."""
        count = len(positions)
        self._codes.codes.resize(count * self._codes.sa_code_size())
        self._codes.ntotal = count
        rows.take(positions, _view(self._codes))
        squared, order = self._codes.search(query[np.newaxis], count)
        measured = np.empty(count, np.float32)
        measured[order[0]] = squared[0]
        return measured


def _view(codes: faiss.IndexScalarQuantizer) -> NDArray[np.float16]:
    """Its vectors [n, D] themselves; good until the next change."""
    flat = faiss.rev_swig_ptr(codes.codes.data(), codes.ntotal * codes.sa_code_size())
    view: NDArray[np.float16] = flat.view(np.float16).reshape(-1, codes.d)
    return view


def _codes(dim: int) -> faiss.IndexScalarQuantizer:
    return faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_L2)
