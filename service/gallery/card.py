"""Exact search on a GPU: the float16 vectors a second time, on the card, and the nearest of them by FAISS.

The card decides only which candidates are measured. Distances that leave the index are measured by the CPU's rule,
and `error` makes ranking fetch as many as the card's rounding asks for: answers are those of the exact search there.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from service.gallery.columns import Selection
from service.gallery.finding import Found, Positions, Scanned, products_error
from service.gallery.stage import StageKind, StageLost
from service.gallery.vectors import Vectors

BLOCK = 1 << 19  # vectors; FAISS moves a whole block when it grows: 2 GiB at D = 2048
FETCHED = 512  # what ranking asks for first; twice that where filters drop some
WIDE = 0.5  # filters that let through less than this share are searched for by themselves
MOST, MOST_CUVS = 2048, 16384  # neighbours that FAISS finds on a card, without cuVS and with it
CUT_OFF = 4  # tensor cores cut sums off where the CPU rounds: so many times its error
FARTHEST = 8.0  # of squared distances, which are 4 at most: FAISS fills up with larger ones

Near = tuple[Positions, NDArray[np.float32]]  # positions and their squared distances, ascending

_log = logging.getLogger(__name__)


def why_no_card(graph: bool = False) -> str | None:
    """What is missing here for searches on a GPU, or for a `graph` there, and what to do; None when nothing is."""
    if not hasattr(faiss, "StandardGpuResources"):
        return "this FAISS is built without GPUs: install the extra gpu instead of cpu, in an environment of its own"
    if not faiss.get_num_gpus():
        return "FAISS sees no GPU: nvidia-smi must list one; look at CUDA_VISIBLE_DEVICES"
    if graph and not has_cuvs():
        return "this FAISS has no CAGRA: install faiss-gpu-cuvs, as the extra gpu does, instead of faiss-gpu"
    return None


def has_cuvs() -> bool:
    """Whether this FAISS is built with NVIDIA's cuVS: it alone has CAGRA, and heeds filters on a GPU."""
    return hasattr(faiss, "GpuIndexCagra")


@contextmanager
def telling_of_loss() -> Iterator[None]:
    """Makes a StageLost of what FAISS raises, which is about the card's memory mostly."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        raise StageLost(" ".join(str(error).split())[:300] or "out of memory") from error


class Searched(Protocol):
    """What searches on the card."""

    @property
    def kind(self) -> StageKind: ...

    @property
    def most(self) -> int:
        """How many it can find for a query."""

    def __len__(self) -> int: ...

    def search(self, queries: NDArray[np.float32], k: int, mask: NDArray[np.bool_] | None = None) -> list[Near]:
        """Up to k near each of the queries [m, D], of those in the mask [n]. Raises StageLost."""


class CardRows:
    """Float16 vectors [n, D] by position on a GPU. Searches may overlap; the card has them one after the other.

    `new_block` makes an empty FAISS index of squared distances. One that `selects` looks only at what a mask lets
    through; otherwise more is fetched, and what the mask does not let through is dropped.
    """

    kind: Literal["gpu"] = "gpu"

    def __init__(self, new_block: Callable[[], faiss.Index], selects: bool) -> None:
        self.most = MOST_CUVS if selects else MOST
        self._new_block = new_block
        self._selects = selects
        self._blocks: list[faiss.Index] = []
        self._lock = threading.Lock()  # FAISS's resources of a card serve one thread at a time

    @property
    def exact(self) -> CardRows:
        """All of it."""
        return self

    def __len__(self) -> int:
        return sum(int(block.ntotal) for block in self._blocks)

    def add(self, vectors: NDArray[np.float16], threads: int) -> None:
        """Adds vectors [n, D] at the next positions. Raises StageLost, and is of no more use then."""
        start = 0
        faiss.omp_set_num_threads(threads)
        with self._lock, telling_of_loss():
            while start < len(vectors):
                if not self._blocks or self._blocks[-1].ntotal >= BLOCK:
                    self._blocks.append(self._new_block())
                part = vectors[start : start + BLOCK - self._blocks[-1].ntotal]
                self._blocks[-1].add(part.astype(np.float32))
                start += len(part)

    def found(self, vectors: Vectors, queries: NDArray[np.float32], selections: Sequence[Selection]) -> list[Found]:
        """What finds the crops near each of these queries [m, D]."""
        scans = [Scanned(vectors, query, chosen.mask) for query, chosen in zip(queries, selections, strict=True)]
        return on_card(self, queries, selections, scans)

    def search(self, queries: NDArray[np.float32], k: int, mask: NDArray[np.bool_] | None = None) -> list[Near]:
        """The k nearest of each of the queries [m, D]; of those in the mask [n], fewer where it does not select."""
        if mask is None or self._selects:
            return merged(len(queries), self.parts(queries, k, mask), k)
        return [through(mask, near) for near in self.search(queries, k)]

    def parts(
        self, queries: NDArray[np.float32], k: int, mask: NDArray[np.bool_] | None, start: int = 0
    ) -> list[tuple[Positions, NDArray[np.float32]]]:
        """The k nearest of each block, for `merged`; of positions from `start` on. Raises StageLost."""
        parts = []
        with self._lock, telling_of_loss():
            for number in range(start // BLOCK, len(self._blocks)):
                block, first = self._blocks[number], number * BLOCK
                passing = None if mask is None else mask[first : first + block.ntotal]
                reach = min(k, int(block.ntotal if passing is None else np.count_nonzero(passing)))
                if not reach:
                    continue
                parameters = None if passing is None else faiss.SearchParameters(sel=selector(passing))
                squared, places = block.search(queries, reach, params=parameters)
                squared = counted(places, squared, passing)
                squared[places + first < start] = np.inf
                parts.append((places + first, squared))
        return parts


def card_rows(dim: int) -> CardRows:
    """No vectors yet, for the first card that CUDA shows. Raises StageLost."""
    with telling_of_loss():
        resources = faiss.StandardGpuResources()
        settings = faiss.GpuIndexFlatConfig()
        settings.useFloat16 = True
        settings.use_cuvs = has_cuvs()
    return CardRows(lambda: faiss.GpuIndexFlatL2(resources, dim, settings), has_cuvs())


def selector(mask: NDArray[np.bool_]) -> faiss.IDSelector:
    """FAISS's form of a mask [n]."""
    return faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))


def counted(places: Positions, squared: NDArray[np.float32], passing: NDArray[np.bool_] | None) -> NDArray[np.float32]:
    """The squared distances [m, k], infinite for what fills up.

    Raises RuntimeError when the mask [n] lets some of it not through: then FAISS did not heed it, and missed others.
    """
    valid = (places >= 0) & (squared < FARTHEST)
    if passing is not None and not passing[places[valid]].all():
        raise RuntimeError(
            "this FAISS does not heed filters on a GPU: install the faiss-gpu-cuvs that the extra gpu takes"
        )
    kept: NDArray[np.float32] = np.where(valid, squared, np.float32(np.inf))
    return kept


def through(mask: NDArray[np.bool_], near: Near) -> Near:
    """Those that the mask [n] lets through."""
    positions, squared = near
    passing = mask[positions]
    return positions[passing], squared[passing]


def merged(count: int, parts: Sequence[tuple[Positions, NDArray[np.float32]]], k: int) -> list[Near]:
    """The k nearest of all parts, each [count, any], for each of so many queries; without what is infinitely far."""
    positions = np.concatenate([np.empty((count, 0), np.int64), *(part for part, _ in parts)], axis=1)
    squared = np.concatenate([np.empty((count, 0), np.float32), *(part for _, part in parts)], axis=1)
    if k < squared.shape[1]:
        near = np.argpartition(squared, k, axis=1)[:, :k]
        positions, squared = np.take_along_axis(positions, near, 1), np.take_along_axis(squared, near, 1)
    order = np.argsort(squared, axis=1)
    positions, squared = np.take_along_axis(positions, order, 1), np.take_along_axis(squared, order, 1)
    counts = np.count_nonzero(np.isfinite(squared), axis=1).tolist()
    return [(row[:count], far[:count]) for row, far, count in zip(positions, squared, counts, strict=True)]


@dataclass(frozen=True, eq=False)
class OnCard:
    """Found on the card; what it cannot find, as more than FAISS gives, is found `otherwise`.

    `first` is what came with the other queries, of all positions.
    """

    searched: Searched
    query: NDArray[np.float32]
    mask: NDArray[np.bool_] | None
    count: int
    first: Near | None
    otherwise: Found

    @property
    def exact(self) -> bool:
        return self.searched.kind == "gpu"

    @property
    def error(self) -> float:
        return max(CUT_OFF * products_error(len(self.query)), self.otherwise.error)

    def nearest(self, k: int) -> Near:
        k = min(k, self.count)
        for positions, squared in self._tries(k):
            if len(positions) >= k:
                return positions[:k], squared[:k]
        return self.otherwise.nearest(k)

    def _tries(self, k: int) -> Iterator[Near]:
        if self.first is not None:
            yield self.first if self.mask is None else through(self.mask, self.first)
        for reach in dict.fromkeys((k, self.searched.most)):
            if reach <= self.searched.most:
                try:
                    yield from self.searched.search(self.query[np.newaxis], reach, self.mask)
                except StageLost as error:
                    _log.error("a search on the card failed; the query is answered without it (%s)", error)
                    return


def on_card(
    searched: Searched, queries: NDArray[np.float32], selections: Sequence[Selection], otherwise: Sequence[Found]
) -> list[Found]:
    """Searches for all queries [m, D] at once, but for those whose filters let little through."""
    wide = [at for at, chosen in enumerate(selections) if chosen.count >= WIDE * len(searched)]
    reach = FETCHED if all(selections[at].mask is None for at in wide) else 2 * FETCHED
    first: dict[int, Near] = {}
    if wide:
        try:
            first |= zip(wide, searched.search(queries[wide], reach), strict=True)
        except StageLost as error:
            _log.error("searches on the card failed; they are answered without it (%s)", error)
            return list(otherwise)
    return [
        OnCard(searched, query, chosen.mask, chosen.count, first.get(at), otherwise[at])
        for at, (query, chosen) in enumerate(zip(queries, selections, strict=True))
    ]
