"""The searchable gallery in memory: exact FAISS search and the columns beside it. A cache of the store.

Vectors are kept as float16, as stored. FAISS finds candidates; distances that leave this module are
computed again in float32 by one fixed rule, so that the same pair has the same distance whatever was
searched around it, before and after a restart.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import faiss
import numpy as np
from numpy.typing import NDArray

from service.gallery.changes import Changes, Entry
from service.gallery.columns import Columns, Frozen
from service.gallery.records import GalleryUnavailable

GATHER_CHUNK = 4096  # rows decoded to float32 at a time: 32 MiB at D = 2048
NARROW = 0.01  # below this share of the gallery, comparing the rows one by one beats a masked scan
COMPACT_SHARE, COMPACT_MINIMUM = 0.25, 1024  # removed vectors that are worth moving the others together


class Vectors:
    """Float16 vectors by position, exact search by squared L2 distance. Not thread-safe.

    They take 2 D bytes each, 4 GB for a million at D = 2048. `reserve` allocates once; where more is appended
    than was reserved, they move to a block of twice the size: three times the memory while they move, of which
    what nothing was written to yet costs addresses only.
    """

    # A scalar quantizer at fp16 and not a flat float32 index: a query is one vector, its search is bound by
    # memory traffic, and half of the bytes take two thirds of the time. (FAISS's BLAS threshold, which
    # matters to batches on a flat index, does not act here.)

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self._faiss = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_L2)

    def __len__(self) -> int:
        return int(self._faiss.ntotal)

    def reserve(self, count: int) -> None:
        """Makes room for `count` vectors in all; to be called while there are none."""
        codes = self._faiss.codes
        codes.resize(count * self._faiss.sa_code_size())
        codes.resize(0)  # keeps the block: FAISS shows Python a vector without its reserve()

    def append(self, vectors: NDArray[np.float16]) -> None:
        """Adds vectors [n, D] at the end."""
        self._faiss.add_sa_codes(np.ascontiguousarray(vectors).view(np.uint8))

    def replace(self, position: int, vector: NDArray[np.float16]) -> None:
        """Overwrites one vector [D]."""
        size = self._faiss.sa_code_size()
        codes = faiss.rev_swig_ptr(self._faiss.codes.data(), len(self) * size).reshape(-1, size)
        codes[position] = vector.view(np.uint8)

    def stored(self, positions: NDArray[np.int64]) -> NDArray[np.float16]:
        """A copy of these vectors [n, D], as they were given."""
        size = self._faiss.sa_code_size()
        if not len(positions):
            return np.empty((0, self.dim), np.float16)
        codes = faiss.rev_swig_ptr(self._faiss.codes.data(), len(self) * size).reshape(-1, size)
        vectors: NDArray[np.float16] = codes[positions].view(np.float16)
        return vectors

    def keep(self, mask: NDArray[np.bool_]) -> None:
        """Drops the positions where `mask` is False; the others move together."""
        dropped = np.packbits(~mask, bitorder="little")
        self._faiss.remove_ids(faiss.IDSelectorBitmap(dropped))

    def search(
        self, query: NDArray[np.float32], k: int, mask: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The k nearest positions and their squared distances, ascending; `mask` [n] says which count."""
        if mask is None:
            squared, positions = self._faiss.search(query[np.newaxis], k)
        else:
            bits = np.packbits(mask, bitorder="little")
            parameters = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits))
            squared, positions = self._faiss.search(query[np.newaxis], k, params=parameters)
        found = positions[0] >= 0
        return positions[0][found], squared[0][found]

    def squared(self, query: NDArray[np.float32], positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Squared distances [n] to these positions, each by the same float32 operations."""
        squared = np.empty(len(positions), np.float32)
        for start in range(0, len(positions), GATHER_CHUNK):
            chunk = slice(start, start + GATHER_CHUNK)
            difference = self._faiss.reconstruct_batch(positions[chunk]) - query
            squared[chunk] = np.einsum("ij,ij->i", difference, difference)
        return squared


class ReadWriteLock:
    """Many readers or one writer; a waiting writer goes before new readers. Not reentrant."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readers = 0
        self._writers_waiting = 0
        self._writing = False

    @contextmanager
    def reading(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._writing and not self._writers_waiting)
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    @contextmanager
    def writing(self) -> Iterator[None]:
        with self._changed:
            self._writers_waiting += 1
            self._changed.wait_for(lambda: not self._writing and not self._readers)
            self._writers_waiting -= 1
            self._writing = True
        try:
            yield
        finally:
            with self._changed:
                self._writing = False
                self._changed.notify_all()


class Index:
    """Vectors and columns, position by position. `reading()` holds off `apply` and `load`.

    `crop_count` and `identity_count` are how many crops are enrolled and how many identities have one: plain
    integers, to be read without the lock.
    """

    def __init__(self, dim: int) -> None:
        self.crop_count = 0
        self.identity_count = 0
        self.columns = Columns()
        self._in_step = True
        self._vectors = Vectors(dim)
        self._lock = ReadWriteLock()

    @property
    def dim(self) -> int:
        return self._vectors.dim

    @contextmanager
    def reading(self) -> Iterator[Columns]:
        """The columns, unchanged for the time of the block; `search` and `squared` belong inside too.

        Raises GalleryUnavailable once a change was cut short: no answer is better than a wrong one.
        """
        with self._lock.reading():
            self._require_in_step()
            yield self.columns

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Holds off readers; what cuts the block short, as lack of memory, leaves the index out of step for good."""
        with self._lock.writing():
            self._require_in_step()
            self._in_step = False
            yield
            self.crop_count = self.columns.crop_count
            self.identity_count = self.columns.identity_count
            self._in_step = True

    def _require_in_step(self) -> None:
        if not self._in_step:
            raise GalleryUnavailable("The index has lost step with the database; restart the service.")

    def search(
        self, query: NDArray[np.float32], k: int, mask: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """At least the k nearest of the positions in `mask` [n], ascending, and their squared distances.

        The distances are good to a relative (D + 2) float32 roundings. `query` is float32 [D].
        """
        count = int(np.count_nonzero(mask))
        if count == len(mask):
            return self._vectors.search(query, k, None)
        if count > NARROW * len(mask):
            return self._vectors.search(query, k, mask)
        positions = np.flatnonzero(mask)
        squared = self.squared(query, positions)
        nearest = np.argsort(squared)
        return positions[nearest], squared[nearest]

    def squared(self, query: NDArray[np.float32], positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Squared distances [n] of the query to these positions; equal vectors get equal distances."""
        return self._vectors.squared(query, positions)

    def reserve(self, count: int) -> None:
        """Makes room for `count` crops in all, before the first is loaded."""
        with self._changing():
            self._vectors.reserve(count)
            self.columns.reserve(count)

    def load(self, entries: Sequence[Entry], vectors: NDArray[np.float16], sound: NDArray[np.bool_]) -> None:
        """Adds stored crops with ascending rows; those not `sound` are listed but not searched."""
        with self._changing():
            self._vectors.append(vectors)
            self.columns.append(entries, sound)

    def thaw(self, frozen: Frozen, vectors: Iterable[NDArray[np.float16]]) -> None:
        """Takes over frozen columns and the vectors that belong to them, in parts; there must be no crops yet."""
        with self._changing():
            for part in vectors:
                self._vectors.append(part)
            self.columns.thaw(frozen)

    def stored(self, positions: NDArray[np.int64]) -> NDArray[np.float16]:
        """A copy of the vectors [n, D] there; to be called inside `reading`."""
        return self._vectors.stored(positions)

    def apply(self, changes: Changes) -> None:
        """Brings in one committed write. Must be called in the order of the commits.

        Raises what cut it short, as MemoryError; from then on GalleryUnavailable, like `reading`.
        """
        with self._changing():
            if changes.added:
                self._vectors.append(np.stack(changes.vectors))
                self.columns.append(changes.added, np.ones(len(changes.added), np.bool_))
            for row, vector in changes.replaced:
                position = self.columns.position(row)
                self._vectors.replace(position, vector)
                self.columns.mark_searchable(position)
            for entry in changes.relabelled:
                self.columns.relabel(entry)
            for row in changes.removed:
                self.columns.remove(row)
            if changes.removed:
                self._compact_if_due()

    def _compact_if_due(self) -> None:
        present = self.columns.present
        removed = len(present) - int(np.count_nonzero(present))
        if removed >= COMPACT_MINIMUM and removed >= COMPACT_SHARE * len(present):
            self._vectors.keep(present)
            self.columns.keep(present)
