"""Search on a GPU: ours, FAISS's and PyTorch's. Ten million crops are a hundred thousand, turned."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.drawn import CROPS_A_PERSON, draw_gallery
from benchmarks.searchers import (
    RARE,
    TENTH,
    THOUSANDTH,
    TOP,
    WAIT_SECONDS,
    Rows,
    Searcher,
    camera_of,
    search_on_one_thread,
)
from benchmarks.worker import available_cores

DRAWN = 100_000  # crops; more are these with their values moved along, which draws as fast as memory is copied


def _blocks(crops: int, dim: int) -> Iterator[Rows]:
    drawn = np.concatenate([rows for _, rows in draw_gallery(min(DRAWN, crops), dim)])
    for turn, start in enumerate(range(0, crops, DRAWN)):
        yield np.roll(drawn[: crops - start], turn, axis=1)


class ResightGpu(Searcher):
    """Our index and ranking without the database, which ten million crops of 2,048 numbers would make 90 GB of."""

    def __init__(self, kind: str = "exact") -> None:
        self._kind = kind
        self.settings = f"RESIGHT_INDEX={kind} on a GPU, without the database; built: all vectors there"

    def build(self, crops: int, dim: int, folder: Path) -> None:
        """Waits until the card has all that the setting asks for."""
        from service.gallery.building import Searching, StageBuilder
        from service.gallery.card import why_no_card
        from service.gallery.index import Index
        from service.gallery.stagefile import StageFile
        from service.gallery.store import Model, Store

        searching = Searching.here(self._kind, available_cores(), True, None)  # type: ignore[arg-type]
        if not searching.card:
            raise RuntimeError(why_no_card())
        searching.fitted(crops, dim)
        self._index = Index(dim, searching.threads)
        self._index.reserve(crops)
        start = 0
        # A graph's recall is measured: it gets the very crops that `exact` draws.
        for rows in (rows for _, rows in draw_gallery(crops, dim)) if self._kind == "cagra" else _blocks(crops, dim):
            self._index.load(_entries(start, len(rows)), rows.astype(np.float16), np.ones(len(rows), np.bool_))
            start += len(rows)
        self._store = Store.open(folder / "none", Model("0" * 64, "drawn", dim))  # nothing of a card's is kept there
        self._builder = StageBuilder(self._index, searching, StageFile(self._store.database, "0" * 64, dim))
        while (stage := self._index.stage) is None or stage.kind != searching.stage_for(crops):
            time.sleep(WAIT_SECONDS)
        search_on_one_thread()

    def search(self, queries: Rows, share: float | None) -> list[list[int]]:
        from service.gallery.ranking import rank
        from service.gallery.records import Filters

        cameras = {None: frozenset[str](), TENTH: frozenset({"c1"}), THOUSANDTH: frozenset({RARE})}[share]
        with self._index.reading() as columns:
            chosen = columns.selection(Filters(cameras=cameras))
            found = self._index.find(queries, [chosen] * len(queries), [False] * len(queries))
            near = [
                rank(one, partial(self._index.measure, query), columns, chosen.mask, chosen.count, TOP)
                for query, one in zip(queries, found, strict=True)
            ]
        return [one.positions[np.argsort(one.distances)[:TOP]].tolist() for one in near]

    def close(self) -> None:
        self._builder.close()
        self._store.close()


def _entries(start: int, count: int) -> list[Any]:
    from service.gallery.changes import Entry

    return [
        Entry(n + 1, str(uuid.UUID(int=n)), str(n // CROPS_A_PERSON), camera_of(n), None)
        for n in range(start, start + count)
    ]


class FaissGpu(Searcher):
    """FAISS's flat index on the GPU."""

    settings = "GpuIndexFlat, useFloat16"

    def build(self, crops: int, dim: int, folder: Path) -> None:
        import faiss

        if not getattr(faiss, "get_num_gpus", int)():
            raise RuntimeError("FAISS finds no GPU")
        self._resources = faiss.StandardGpuResources()
        settings = faiss.GpuIndexFlatConfig()
        settings.useFloat16 = True
        self._index = faiss.GpuIndexFlatIP(self._resources, dim, settings)
        for rows in _blocks(crops, dim):
            self._index.add(rows)

    def search(self, queries: Rows, share: float | None) -> list[list[int]]:
        if share is not None:
            raise NotImplementedError("its flat index has no filters")
        return self._index.search(queries, TOP)[1].tolist()  # type: ignore[no-any-return]


class PytorchGpu(Searcher):
    """A matrix product a million crops at a time, and the best of each."""

    settings = "float16, blocks of a million"
    BLOCK = 1_000_000

    def build(self, crops: int, dim: int, folder: Path) -> None:
        import torch

        if not torch.cuda.is_available():
            raise RuntimeError("PyTorch finds no GPU")
        self._rows = torch.empty((crops, dim), dtype=torch.float16, device="cuda")
        start = 0
        for rows in _blocks(crops, dim):
            self._rows[start : start + len(rows)] = torch.from_numpy(rows).to("cuda")
            start += len(rows)

    def search(self, queries: Rows, share: float | None) -> list[list[int]]:
        import torch

        if share is not None:
            raise NotImplementedError("nothing is filtered here")
        asked = torch.from_numpy(queries).to("cuda", torch.float16)
        cosines, found = [], []
        for start in range(0, len(self._rows), self.BLOCK):
            best = (asked @ self._rows[start : start + self.BLOCK].T).topk(TOP)
            cosines.append(best.values)
            found.append(best.indices + start)
        order = torch.cat(cosines, 1).topk(TOP).indices
        return torch.cat(found, 1).gather(1, order).tolist()


GPU_SEARCHERS: dict[str, Callable[[], Searcher]] = {
    "resight-gpu": ResightGpu,
    "resight-cagra": lambda: ResightGpu("cagra"),
    "faiss-gpu": FaissGpu,
    "pytorch-gpu": PytorchGpu,
}
