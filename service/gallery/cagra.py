"""A first stage on a GPU: CAGRA, a graph over the vectors (Ootomo et al., ICDE 2024), by FAISS and NVIDIA's cuVS.

It has its own copy of the vectors that it was built of, and takes no others: what was added since is found among the
exact rows, which are on the card, too.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Literal

import faiss
import numpy as np
from numpy.typing import NDArray

from service.gallery.card import CardRows, Near, OnCard, counted, merged, on_card, selector, telling_of_loss
from service.gallery.columns import Selection
from service.gallery.finding import Found, Positions, Scanned
from service.gallery.vectors import Vectors

DEGREE = 64  # links of a vector, 4 bytes each; twice as many while it is built
LEAST_KEPT = 64  # candidates that a search keeps while it walks; it finds no more than it keeps
KEPT_STEP = 32  # cuVS wants a multiple of it


class Cagra:
    """The graph, beside the rows. Searches may overlap; the card has them one after the other."""

    kind: Literal["cagra"] = "cagra"
    most = 1024  # what its quick kernels can find

    def __init__(self, rows: CardRows, graph: faiss.Index) -> None:
        self._rows = rows
        self._graph = graph
        self._built = int(graph.ntotal)
        self._lock = threading.Lock()

    @property
    def exact(self) -> CardRows:
        """The rows."""
        return self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, vectors: NDArray[np.float16], threads: int) -> None:
        """Adds vectors [n, D] to the rows. Raises StageLost."""
        self._rows.add(vectors, threads)

    def found(self, vectors: Vectors, queries: NDArray[np.float32], selections: Sequence[Selection]) -> list[Found]:
        """What finds the crops near each of these queries [m, D]; what the graph does not find, the rows do."""
        rows = [
            OnCard(self._rows, query, chosen.mask, chosen.count, None, Scanned(vectors, query, chosen.mask))
            for query, chosen in zip(queries, selections, strict=True)
        ]
        return on_card(self, queries, selections, rows)

    def search(self, queries: NDArray[np.float32], k: int, mask: NDArray[np.bool_] | None = None) -> list[Near]:
        """Up to k near each of the queries [m, D], of those in the mask [n]. Raises StageLost."""
        parts = []
        passing = None if mask is None else mask[: self._built]
        reach = min(k, self._built if passing is None else int(np.count_nonzero(passing)))
        if reach:
            parts.append(self._walked(queries, reach, passing))
        if len(self._rows) > self._built:
            parts += self._rows.parts(queries, k, mask, self._built)
        return merged(len(queries), parts, k)

    def _walked(
        self, queries: NDArray[np.float32], k: int, passing: NDArray[np.bool_] | None
    ) -> tuple[Positions, NDArray[np.float32]]:
        with self._lock, telling_of_loss():
            squared, places = self._graph.search(
                queries.astype(np.float16), k, params=_walk(k, passing), numeric_type=faiss.Float16
            )
        return places, counted(places, squared, passing)


def built_graph(vectors: NDArray[np.float16]) -> faiss.Index:
    """A graph of vectors [n, D] on the first card; takes the card minutes for millions. Raises StageLost."""
    settings = faiss.GpuIndexCagraConfig()
    settings.graph_degree, settings.intermediate_graph_degree = DEGREE, 2 * DEGREE
    with telling_of_loss():
        resources = faiss.StandardGpuResources()  # its own: exact searches go on meanwhile
        graph = faiss.GpuIndexCagra(resources, vectors.shape[1], faiss.METRIC_L2, settings)
        graph.train(vectors, numeric_type=faiss.Float16)
    return graph


def _walk(k: int, passing: NDArray[np.bool_] | None) -> faiss.SearchParameters:
    kept = -(-max(k, LEAST_KEPT) // KEPT_STEP) * KEPT_STEP
    return faiss.SearchParametersCagra(itopk_size=kept, sel=None if passing is None else selector(passing))
