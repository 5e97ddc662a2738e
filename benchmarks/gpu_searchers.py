"""Exact search in float16 on a GPU, by FAISS and by PyTorch. Ten million crops are a hundred thousand, turned."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.drawn import draw_gallery
from benchmarks.searchers import TOP, Rows, Searcher

DRAWN = 100_000  # crops; more are these with their values moved along, which draws as fast as memory is copied


def _blocks(crops: int, dim: int) -> Iterator[Rows]:
    drawn = np.concatenate([rows for _, rows in draw_gallery(min(DRAWN, crops), dim)])
    for turn, start in enumerate(range(0, crops, DRAWN)):
        yield np.roll(drawn[: crops - start], turn, axis=1)


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


GPU_SEARCHERS: dict[str, Callable[[], Searcher]] = {"faiss-gpu": FaissGpu, "pytorch-gpu": PytorchGpu}
