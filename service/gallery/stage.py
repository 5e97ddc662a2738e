"""The first stage of searching a large gallery: FAISS names likely positions, which are then measured exactly.

`ivf` keeps one bit for each number of a vector (RaBitQ, Gao and Long, SIGMOD 2024) in cells around centroids and looks
into the nearest cells; `hnsw` walks a graph of vectors of 8 bits a number: fewer vectors looked at, eight times the
memory, and minutes to build where the cells take seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from service.gallery.columns import Selection
from service.gallery.finding import Found, Positions, Scanned
from service.gallery.vectors import Vectors

Kind = Literal["ivf", "hnsw"]
StageKind = Literal["ivf", "hnsw", "gpu", "cagra"]  # the last two are on a card: `card`, `cagra`
LEAST_CELLS, MOST_CELLS = 16, 4096
ROUNDS = 10  # of k-means
SAMPLE_A_CELL = 40  # vectors that k-means sees for each of its centroids; FAISS wants 39
HALVED_UP_TO = 256  # cells of which half are looked into, for recall of strangers, too; of more, 8 √cells
COMMON = 0.5  # filters that let a smaller share through make it look into more cells
LINKS, EF_CONSTRUCTION = 32, 100  # of the graph
MORE = 4  # how much farther each further search looks


class StageLost(Exception):
    """It cannot be kept, or built: the card's memory does not do. The message says what FAISS said."""


class Stage(Protocol):
    """What finds candidates among all vectors, by position. Searches may overlap, changes may not."""

    @property
    def kind(self) -> StageKind: ...

    @property
    def exact(self) -> Stage | None:
        """What of it misses nothing; None where that is left to the vectors themselves."""

    def __len__(self) -> int: ...

    def add(self, vectors: NDArray[np.float16], threads: int) -> None:
        """Adds vectors [n, D] at the next positions, with so many threads of the CPU. Raises StageLost."""

    def found(self, vectors: Vectors, queries: NDArray[np.float32], selections: Sequence[Selection]) -> list[Found]:
        """What finds the crops near each of these queries [m, D]; `vectors` are the same ones."""


class FirstStage:
    """Vectors [n, D] by position, in the order in which they were added. Searches may overlap, changes may not."""

    def __init__(self, index: faiss.Index, kind: Kind) -> None:
        self._index = index
        self.kind = kind

    @classmethod
    def trained(
        cls, kind: Kind, sample: NDArray[np.float32], count: int, wanted: Callable[[], bool] = lambda: True
    ) -> FirstStage | None:
        """An empty one for about `count` vectors, fitted to a sample of them [m, D]; None once it is not `wanted`."""
        dim = sample.shape[1]
        if kind == "hnsw":
            index = faiss.index_factory(dim, f"HNSW{LINKS}_SQ8", faiss.METRIC_L2)
            index.hnsw.efConstruction = EF_CONSTRUCTION
        else:
            index = faiss.index_factory(dim, f"IVF{cells(count)},RaBitQ", faiss.METRIC_L2)
            centroids = _centroids(sample, index.nlist, wanted)
            if centroids is None:
                return None
            index.quantizer.add(centroids)
        index.train(sample)
        return cls(index, kind)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def dim(self) -> int:
        """How many numbers a vector has."""
        return int(self._index.d)

    @classmethod
    def read(cls, kind: Kind, read: Callable[[int], bytes]) -> FirstStage:
        """What `write` wrote; `read` gives so many bytes of it. Raises RuntimeError where another FAISS wrote it."""
        return cls(faiss.read_index(faiss.PyCallbackIOReader(read)), kind)

    def write(self, write: Callable[[bytes], None]) -> None:
        """Hands over all of it, part by part. Raises what `write` raises."""
        faiss.write_index(self._index, faiss.PyCallbackIOWriter(write))

    def add(self, vectors: NDArray[np.float16], threads: int) -> None:
        """Adds vectors [n, D] at the next positions."""
        faiss.omp_set_num_threads(threads)  # of the calling thread: FAISS would take all cores
        self._index.add(vectors.astype(np.float32))

    def keep(self, mask: NDArray[np.bool_]) -> bool:
        """Drops the positions where `mask` [n] is False; the others move together. A graph cannot: then False."""
        if mask.all():
            return True
        if self.kind == "hnsw":
            return False
        self._index.remove_ids(faiss.IDSelectorBitmap(np.packbits(~mask, bitorder="little")))
        moved = np.cumsum(mask) - 1
        lists = self._index.invlists
        for cell in range(lists.nlist):
            if size := lists.list_size(cell):
                positions = faiss.rev_swig_ptr(lists.get_ids(cell), size)
                positions[:] = moved[positions]
        return True

    @property
    def exact(self) -> None:
        """Nothing of it."""

    def found(self, vectors: Vectors, queries: NDArray[np.float32], selections: Sequence[Selection]) -> list[Found]:
        """What finds the crops near each of these queries [m, D]."""
        return [
            Staged(self, vectors, query, chosen.mask, chosen.count, Scanned(vectors, query, chosen.mask))
            for query, chosen in zip(queries, selections, strict=True)
        ]

    def likely(
        self, query: NDArray[np.float32], k: int, mask: NDArray[np.bool_] | None, effort: float
    ) -> tuple[Positions, bool]:
        """Up to k positions near the query [D], in no order; and whether more effort could not find others.

        `mask` [n] says which count; an effort of 1 looks where the nearest mostly are, if most count.
        """
        selector = None if mask is None else faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
        if self.kind == "hnsw":
            ef = int(effort * max(k, 64))
            parameters = faiss.SearchParametersHNSW(efSearch=ef, sel=selector)
            exhausted = ef >= len(self)
        else:
            probes = min(math.ceil(effort * probed(self._index.nlist)), self._index.nlist)
            parameters = faiss.SearchParametersIVF(nprobe=probes, sel=selector)
            exhausted = probes == self._index.nlist
        _, positions = self._index.search(query[np.newaxis], k, params=parameters)
        return positions[0][positions[0] >= 0], exhausted


def _centroids(sample: NDArray[np.float32], count: int, wanted: Callable[[], bool]) -> NDArray[np.float32] | None:
    """K-means [count, D], round by round: all at once takes minutes in the largest galleries, and nothing stops it."""
    centroids: NDArray[np.float32] | None = None
    for _ in range(ROUNDS):
        if not wanted():
            return None
        means = faiss.Kmeans(sample.shape[1], count, niter=1, min_points_per_centroid=1)  # of fewer it warns on stderr
        means.train(sample, init_centroids=centroids)
        centroids = means.centroids
    return centroids


def cells(count: int) -> int:
    """The power of two next to √count, within bounds."""
    return int(min(max(2 ** round(math.log2(max(count, 1)) / 2), LEAST_CELLS), MOST_CELLS))


def probed(cells: int) -> float:
    """How many of the cells are looked into at first."""
    return cells / 2 if cells <= HALVED_UP_TO else math.sqrt(HALVED_UP_TO * cells) / 2


def sample_size(kind: Kind, count: int) -> int:
    """How many vectors `FirstStage.trained` should see."""
    return min(count, SAMPLE_A_CELL * cells(count) if kind == "ivf" else 10_000)


@dataclass(frozen=True, eq=False)
class Staged:
    """Found by a first stage, and measured: misses some of the nearest now and then, with no false distance."""

    stage: FirstStage
    vectors: Vectors
    query: NDArray[np.float32]
    mask: NDArray[np.bool_] | None
    count: int
    otherwise: Found
    exact = False

    @property
    def error(self) -> float:
        return self.otherwise.error

    def nearest(self, k: int) -> tuple[Positions, NDArray[np.float32]]:
        """What is found of the k nearest; looks farther until there are as many, and at everything at last."""
        k = min(k, self.count)
        effort = max(1.0, COMMON * len(self.stage) / self.count)
        while True:
            positions, exhausted = self.stage.likely(self.query, k, self.mask, effort)
            if len(positions) == k:
                break
            if exhausted:
                return self.otherwise.nearest(k)
            effort *= MORE
        squared = self.vectors.measure(self.query, positions)
        order = np.argsort(squared)
        return positions[order], squared[order]
