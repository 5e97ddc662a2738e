"""Builds the graph of a gallery that is searched on a GPU, while exact search goes on beside it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress

import faiss
import numpy as np
from numpy.typing import NDArray

from service.gallery.cagra import built_graph
from service.gallery.index import PART, Index
from service.gallery.memory import free_memory
from service.gallery.stage import StageLost

LOOK_SECONDS = 0.1  # how soon it is noticed that the graph is no longer wanted


def graph_of(index: Index, count: int, arrangement: int, wanted: Callable[[], bool]) -> faiss.Index | None:
    """A graph of the first `count` vectors. None when they were rearranged, or it is no longer `wanted`.

    Raises StageLost when the card, or this machine, has no memory for it.
    """
    vectors = _copied(index, count, arrangement, wanted)
    return None if vectors is None else _built_aside(vectors, wanted)


def _copied(index: Index, count: int, arrangement: int, wanted: Callable[[], bool]) -> NDArray[np.float16] | None:
    """The first vectors [count, D], which stay as they are: FAISS wants them in one piece."""
    free = free_memory()
    if free is not None and free < 2 * count * index.dim:
        raise StageLost("while it is built, the main memory holds the vectors a second time, and has no room")
    vectors = np.empty((count, index.dim), np.float16)
    for start in range(0, count, PART):
        part = index.part(start, min(PART, count - start), arrangement)
        if part is None or not wanted():
            return None
        vectors[start : start + len(part)] = part
    return vectors


def _built_aside(vectors: NDArray[np.float16], wanted: Callable[[], bool]) -> faiss.Index | None:
    """Their graph; None once it is not wanted: nothing stops FAISS, so a thread that nobody waits for calls it."""
    graph: Future[faiss.Index] = Future()

    def build() -> None:
        try:
            graph.set_result(built_graph(vectors))
        except BaseException as error:
            graph.set_exception(error)

    threading.Thread(target=build, name="gallery-graph", daemon=True).start()
    while wanted():
        with suppress(TimeoutError):
            return graph.result(LOOK_SECONDS)
    return None
