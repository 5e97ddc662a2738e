"""One index in a process of its own: `python -m benchmarks.searchers NAME`, asked by a Worker.

Every one holds the same drawn crops, rounded to float16 as our gallery stores them. A crop's number says which filter
lets it through: one in ten, or one in a thousand.
"""

from __future__ import annotations

import argparse
import os
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.drawn import CROPS_A_PERSON, draw_gallery, draw_queries
from benchmarks.worker import available_cores, resident_bytes, serve

TOP = 10
TENTH, THOUSANDTH = 0.1, 0.001
RARE = "rare"
ONE_THREAD = "FAISS on one thread as in the service"
WAIT_SECONDS = 0.5
Rows = NDArray[np.float32]


def passing(numbers: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    """Which crops a filter lets through."""
    mask: NDArray[np.bool_] = numbers % 1000 == 0 if share == THOUSANDTH else numbers % 10 == 1
    return mask


def camera_of(number: int) -> str:
    """The label by which our gallery filters as `passing` does."""
    return RARE if number % 1000 == 0 else f"c{number % 10}"


def rounded(rows: Rows) -> Rows:
    return rows.astype(np.float16).astype(np.float32)


def search_on_one_thread() -> None:
    """Gives the calling thread the FAISS that the service's threads of searches have (service/api/searching.py)."""
    import faiss

    faiss.omp_set_num_threads(1)


class Searcher(ABC):
    """An index of drawn crops by number."""

    settings = ""

    @abstractmethod
    def build(self, crops: int, dim: int, folder: Path) -> None:
        """Makes the index; `folder` is for what it writes."""

    @abstractmethod
    def search(self, queries: Rows, share: float | None) -> list[list[int]]:
        """The TOP nearest of each query, nearest first. Raises NotImplementedError for a filter that it has not."""

    def near(self, queries: Rows, share: float | None) -> list[list[int]]:
        """The same, for recall, where `search` does not say it all."""
        return self.search(queries, share)

    def close(self) -> None:  # noqa: B027 (most hold nothing)
        """Gives back what it holds."""


class Resight(Searcher):
    """Our gallery, the whole use case: stored in SQLite, ranked by identity, with its verdict. `fill` made it."""

    def __init__(self, kind: str = "auto") -> None:
        self._kind = kind
        self.settings = f"RESIGHT_INDEX={kind}, {ONE_THREAD}; built: opened, and its first stage ready"

    def build(self, crops: int, dim: int, folder: Path) -> None:
        """Opens it, and waits until searches are what the setting asks for."""
        from service.gallery.building import Searching
        from service.gallery.folder import STAGE_NAME

        (folder / "gallery" / STAGE_NAME).unlink(missing_ok=True)  # another contender's: each builds its own
        searching = Searching(self._kind, available_cores())  # type: ignore[arg-type]
        self._gallery = open_gallery(folder, dim, searching)
        while self._gallery.stage != searching.stage_for(crops):
            time.sleep(WAIT_SECONDS)
        search_on_one_thread()

    def search(self, queries: Rows, share: float | None) -> list[list[int]]:
        return [self._numbers(answer) for answer in self._ask(queries, share, shown=5)]

    def near(self, queries: Rows, share: float | None) -> list[list[int]]:
        return [self._numbers(answer) for answer in self._ask(queries, share, shown=TOP)]

    def close(self) -> None:
        self._gallery.close()

    def _ask(self, queries: Rows, share: float | None, shown: int) -> list[Any]:
        from service.gallery.records import Filters, QueryOptions

        wanted = {None: frozenset[str](), TENTH: frozenset({"c1"}), THOUSANDTH: frozenset({RARE})}[share]
        options = QueryOptions(top_k=TOP, crops_per_identity=shown, filters=Filters(cameras=wanted))
        return query_all(self._gallery, queries, options)

    @staticmethod
    def _numbers(answer: Any) -> list[int]:
        hits = sorted(
            (hit.distance, uuid.UUID(hit.crop.crop_id).int) for match in answer.matches for hit in match.crops
        )
        return [number for _, number in hits[:TOP]]


def fill(folder: Path, crops: int, dim: int) -> None:
    """Enrols what all the others hold, too."""
    from service.gallery.building import Searching
    from service.gallery.records import Labels, NewCrop

    gallery = open_gallery(folder, dim, Searching("exact"))
    for numbers, rows in draw_gallery(crops, dim):
        gallery.enrol(
            [
                NewCrop(
                    str(uuid.UUID(int=number)),
                    row,
                    labels=Labels(identity=str(number // CROPS_A_PERSON), camera=camera_of(number)),
                )
                for number, row in zip(numbers, rows, strict=True)
            ]
        )
    gallery.close()


def open_gallery(folder: Path, dim: int, searching: Any) -> Any:
    """Our gallery, as the service opens it."""
    from service.gallery.gallery import Gallery

    return Gallery.open(folder / "gallery", "0" * 64, "drawn", dim, None, None, searching)


def query_all(gallery: Any, queries: Rows, options: Any) -> list[Any]:
    """Answers of one-shot queries that came together, as the service asks them."""
    from service.gallery.records import Probe

    answers: list[Any] = gallery.query_all([Probe(query[np.newaxis], options) for query in queries])
    return answers


class Faiss(Searcher):
    """A flat index; `tuned` sends four queries or more through BLAS together, which its default does from 63 on."""

    def __init__(self, tuned: bool = False, fp16: bool = False) -> None:
        self._tuned, self._fp16 = tuned, fp16
        self.settings = "distance_compute_blas_threshold = 3 D" if tuned else "defaults"

    def build(self, crops: int, dim: int, folder: Path) -> None:
        import faiss

        if self._tuned:
            faiss.cvar.distance_compute_blas_threshold = 3 * dim
        if self._fp16:
            self._index = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        else:
            self._index = faiss.IndexFlatIP(dim)
        for _, rows in draw_gallery(crops, dim):
            self._index.add(rounded(rows))

    def search(self, queries: Rows, share: float | None) -> list[list[int]]:
        import faiss

        if share is None:
            return self._index.search(queries, TOP)[1].tolist()  # type: ignore[no-any-return]
        mask = passing(np.arange(self._index.ntotal), share)
        if share == THOUSANDTH and not self._fp16:  # a flat index visits so few one by one, which is far faster
            selector = faiss.IDSelectorArray(np.flatnonzero(mask))
        else:
            selector = faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
        found = self._index.search(queries, TOP, params=faiss.SearchParameters(sel=selector))[1]
        return found.tolist()  # type: ignore[no-any-return]


class Hnswlib(Searcher):
    """hnswlib's graph in float32."""

    settings = "M 32, ef_construction 100, ef 64"

    def build(self, crops: int, dim: int, folder: Path) -> None:
        import hnswlib

        self._index = hnswlib.Index("ip", dim)
        self._index.init_index(crops, M=32, ef_construction=100)
        self._index.set_ef(64)
        for numbers, rows in draw_gallery(crops, dim):
            self._index.add_items(rounded(rows), np.array(numbers))

    def search(self, queries: Rows, share: float | None) -> list[list[int]]:
        if share is not None:
            raise NotImplementedError("its filter is a Python function called for every crop that it meets")
        return self._index.knn_query(queries, TOP)[0].tolist()  # type: ignore[no-any-return]


class Usearch(Searcher):
    """usearch's graph in bfloat16."""

    settings = "bf16, connectivity 32, expansion_add 128, expansion_search 64"

    def build(self, crops: int, dim: int, folder: Path) -> None:
        from usearch.index import Index

        sizes = {"connectivity": 32, "expansion_add": 128, "expansion_search": 64}
        self._index = Index(ndim=dim, metric="ip", dtype="bf16", **sizes)
        for numbers, rows in draw_gallery(crops, dim):
            self._index.add(np.array(numbers), rounded(rows))

    def search(self, queries: Rows, share: float | None) -> list[list[int]]:
        if share is not None:
            raise NotImplementedError("its Python package has no filters")
        return self._index.search(queries, TOP).keys.reshape(len(queries), -1).tolist()  # type: ignore[no-any-return]


def _gpu(name: str) -> Callable[[], Searcher]:
    def make() -> Searcher:
        from benchmarks.gpu_searchers import GPU_SEARCHERS

        return GPU_SEARCHERS[name]()

    return make


SEARCHERS: dict[str, Callable[[], Searcher]] = {
    "resight": Resight,
    "resight-exact": lambda: Resight("exact"),
    "resight-compressed": lambda: Resight("compressed"),
    "resight-hnsw": lambda: Resight("hnsw"),
    "faiss": Faiss,
    "faiss-tuned": lambda: Faiss(tuned=True),
    "faiss-fp16": lambda: Faiss(fp16=True),
    "hnswlib": Hnswlib,
    "usearch": Usearch,
    **{name: _gpu(name) for name in ("resight-gpu", "resight-cagra", "faiss-gpu", "pytorch-gpu")},
}


class Asked:
    """Answers a worker's questions about one index."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, do: str, **message: Any) -> Any:
        """`build` crops of dim in a folder; `search` batch, share, seconds; `near` count: numbers of the nearest."""
        if do == "build":
            self._crops, self._dim = message["crops"], message["dim"]
            return self._build(Path(message["folder"]))
        queries = rounded(draw_queries(message["batch"], self._crops, self._dim))
        if do == "near":
            return self._searcher.near(queries, None)
        return self._time(queries, message["share"], message["seconds"])

    def _build(self, folder: Path) -> dict[str, Any]:
        self._searcher: Searcher = SEARCHERS[self._name]()
        before, begun = resident_bytes(), time.perf_counter()
        self._searcher.build(self._crops, self._dim, folder)
        seconds = time.perf_counter() - begun
        return {"seconds": seconds, "bytes": resident_bytes() - before, "settings": self._searcher.settings}

    def _time(self, queries: Rows, share: float | None, seconds: float) -> list[float]:
        self._searcher.search(queries, share)
        taken, begun = list[float](), time.perf_counter()
        while not taken or time.perf_counter() - begun < seconds:
            started = time.perf_counter()
            self._searcher.search(queries, share)
            taken.append(time.perf_counter() - started)
        return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=SEARCHERS)
    name = parser.parse_args().name
    serve(Asked(name))
    os._exit(0)  # at once: a gallery that is closed writes its snapshot first, and nobody will read it


if __name__ == "__main__":
    main()
