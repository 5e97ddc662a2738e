"""A card where there is none: FAISS's indexes of the CPU stand where those of the card would be.

What needs the card itself is in test_on_gpu.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from service.gallery import building, cagra, card, graphbuilding, index, memory
from service.gallery.building import IndexKind, Searching
from service.gallery.card import CardRows
from service.gallery.erasures import Selection
from service.gallery.gallery import Gallery
from service.gallery.records import Answer, Filters, NewCrop, Probe, QueryOptions
from tests.service.gallery.cases import MODEL
from tests.service.gallery.large import DIM

GIB = 2**30
FILTERS = (
    Filters(),
    Filters(exclude_cameras=frozenset({"c1"})),
    Filters(cameras=frozenset({"c3"})),
    Filters(identities=frozenset({"p3", "p7", "p30"})),
)


class Rows:
    """A block of a card, by FAISS's float16 index of the CPU.

    The card has room for `room` vectors, and for searches of blocks of `sight`.
    """

    room = sight = 10**9
    held = 0

    def __init__(self, selects: bool) -> None:
        self._index = faiss.IndexScalarQuantizer(DIM, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_L2)
        self._selects = selects

    @property
    def ntotal(self) -> int:
        return int(self._index.ntotal)

    def add(self, vectors: NDArray[np.float32]) -> None:
        if Rows.held + len(vectors) > Rows.room:
            raise RuntimeError("Error in faiss::gpu\n  StandardGpuResources: alloc fail")
        Rows.held += len(vectors)
        self._index.add(vectors)

    def search(self, queries: NDArray[np.float32], k: int, params: Any = None) -> Any:
        if self.ntotal > Rows.sight:
            raise RuntimeError("out of memory")
        assert 0 < k <= min(self.ntotal, card.MOST_CUVS if self._selects else card.MOST)
        assert params is None or self._selects
        squared, places = self._index.search(queries, k, params=params)
        assert (places >= 0).all()  # no more is asked for than passes: what cuVS fills up with is not said
        return squared, places


class Graph:
    """A CAGRA graph, by FAISS's HNSW of the CPU."""

    def __init__(self, vectors: NDArray[np.float16]) -> None:
        self._index = faiss.IndexHNSWFlat(DIM, 32)
        self._index.add(vectors.astype(np.float32))
        self.ntotal = len(vectors)
        self.asked = 0

    def search(self, queries: NDArray[np.float16], k: int, params: Any, numeric_type: int) -> Any:
        assert queries.dtype == np.float16
        assert numeric_type == faiss.Float16
        self.asked += len(queries)
        return self._index.search(queries.astype(np.float32), k, params=params)


def walk(k: int, passing: NDArray[np.bool_] | None) -> Any:
    return faiss.SearchParametersHNSW(efSearch=2 * k, sel=None if passing is None else card.selector(passing))


@pytest.fixture
def with_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """A card for galleries from 1,200 crops on, with as much memory as they want."""
    monkeypatch.setattr(building, "CHECK_SECONDS", 0.01)
    monkeypatch.setattr(index, "COMPACT_MINIMUM", 100)
    monkeypatch.setattr(card, "BLOCK", 700)
    monkeypatch.setattr(building, "card_rows", lambda dim: rows(selects=True))
    monkeypatch.setattr(graphbuilding, "built_graph", Graph)
    monkeypatch.setattr(building, "EXACT_UP_TO", 1200)
    monkeypatch.setattr(cagra, "_walk", walk)
    monkeypatch.setattr(memory, "free_on_card", lambda: None)
    for name, value in (("room", 10**9), ("sight", 10**9), ("held", 0)):
        monkeypatch.setattr(Rows, name, value)


def rows(selects: bool) -> CardRows:
    return CardRows(lambda: Rows(selects), selects)


def opened(folder: Path, kind: IndexKind = "auto", on_card: bool = True) -> Gallery:
    return Gallery.open(folder, MODEL, "model-a", DIM, None, 0.3, Searching(kind, card=on_card))


def erase(gallery: Gallery, crops: Sequence[NewCrop]) -> None:
    gallery.erasures.erase(Selection(crop_ids=frozenset(crop.crop_id for crop in crops)))


def answers(gallery: Gallery, probes: NDArray[np.float32], exact: bool = False, top_k: int = 10) -> list[Answer]:
    """To all probes with all filters, asked at once."""
    asked = [
        Probe(probe[None], QueryOptions(top_k, 2, filters, exact=exact)) for probe in probes for filters in FILTERS
    ]
    found = []
    for answer in gallery.query_all(asked):
        assert isinstance(answer, Answer)
        found.append(answer)
    return found
