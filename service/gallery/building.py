"""Builds what searches of a large gallery ask first, in the background, while exact search answers."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

import faiss
import numpy as np
from numpy.typing import NDArray

from service.gallery.cagra import Cagra, built_graph
from service.gallery.card import CardRows, card_rows, why_no_card
from service.gallery.index import Index
from service.gallery.memory import free_memory, require_card_memory
from service.gallery.periodic import Periodic
from service.gallery.records import GalleryUnavailable
from service.gallery.stage import FirstStage, Kind, Stage, StageKind, StageLost, sample_size
from service.priority import give_way

IndexKind = Literal["auto", "exact", "ivf", "hnsw", "compressed", "cagra"]

EXACT_UP_TO = 50_000  # crops; past that `auto` looks at likely ones first, and `cagra` walks its graph
LEAST_STAGED = 1_000  # crops that are searched exactly by the CPU, whatever is set
OUTGROWN = {"ivf": 4.0, "hnsw": 4.0, "cagra": 1.5}  # times its size that a gallery grows before it is built anew
ON_CARD: tuple[IndexKind, ...] = ("auto", "exact", "cagra")  # the others are for the CPU
CHECK_SECONDS = 1.0
PART = 1024  # vectors copied at a time: writes wait no longer than for these

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Searching:
    """How the gallery is searched: `kind` as RESIGHT_INDEX says, with so many threads.

    `compressed` is `ivf` with its vectors in a file instead of in memory. Without `staged`, no stage is built
    whatever the kind: for who enrols and does not search. On a `card`, `auto` and `exact` compare every crop there;
    without one, `cagra` is as `auto`.
    """

    kind: IndexKind = "auto"
    threads: int = 1
    staged: bool = True
    card: bool = False

    @classmethod
    def here(cls, kind: IndexKind, threads: int, staged: bool, gpu_wanted: bool | None) -> Searching:
        """On a GPU where FAISS has one, unless `gpu_wanted` is False; where it is True, the log says what is missing.

        Raises GalleryUnavailable for `cagra` where it cannot be had, with what is missing.
        """
        searching = cls(kind, threads, staged)
        if not staged or kind not in ON_CARD or gpu_wanted is False:
            return searching
        lacking = why_no_card(graph=kind == "cagra")
        if lacking is not None and kind == "cagra":
            raise GalleryUnavailable(f"RESIGHT_INDEX=cagra searches on a GPU, and {lacking}.")
        if lacking is not None and gpu_wanted:
            _log.warning("searches run on the CPU: %s", lacking)
        return replace(searching, card=lacking is None)

    def fitted(self, crops: int, dim: int) -> Searching:
        """Itself; `auto` without the card where that has no memory for so many crops of D numbers, and the log says so.

        Raises GalleryUnavailable where another kind has none.
        """
        if self.card:
            try:
                require_card_memory(crops, dim, graph=self.kind == "cagra" and crops > EXACT_UP_TO)
            except GalleryUnavailable as error:
                if self.kind != "auto":
                    raise
                _log.warning("searches run on the CPU: %s", error)
                return replace(self, card=False)
        return self

    @property
    def in_memory(self) -> bool:
        """Whether the vectors are."""
        return self.kind != "compressed"

    def stage_for(self, crops: int) -> StageKind | None:
        """What so many crops are searched by, None for comparing them all on the CPU."""
        if not self.staged or crops < LEAST_STAGED:
            return None
        if self.card:
            return "cagra" if self.kind == "cagra" and crops > EXACT_UP_TO else "gpu"
        if self.kind == "exact" or (self.kind in ("auto", "cagra") and crops <= EXACT_UP_TO):
            return None
        return "hnsw" if self.kind == "hnsw" else "ivf"


AUTO = Searching()


class StageBuilder:
    """Keeps an index supplied with the stage that its size asks for, on a thread of its own."""

    def __init__(self, index: Index, searching: Searching) -> None:
        self._index = index
        self._searching = searching
        self._closed = False
        self._built_for = 0
        self._watch = Periodic("gallery-stage", CHECK_SECONDS, self._look_quietly)

    def close(self) -> None:
        """Ends the thread; a stage that is being built is given up. Idempotent."""
        self._closed = True
        self._watch.close()

    def _look_quietly(self) -> None:
        with suppress(GalleryUnavailable):  # an index out of step: the gallery says so, once and not every second
            self._look()

    def _look(self) -> None:
        crops = self._index.crop_count
        kind = self._searching.stage_for(crops)
        stage = self._index.stage
        if kind is None:
            if stage is not None:
                self._index.adopt(None, self._index.arrangement)
            return
        if stage is not None and stage.kind == kind and not self._outgrown(kind, crops):
            return
        give_way()
        faiss.omp_set_num_threads(self._searching.threads)
        try:
            self.build(kind)
        except StageLost as error:
            self._do_without(kind, error)

    def _outgrown(self, kind: StageKind, crops: int) -> bool:
        return kind in OUTGROWN and crops >= OUTGROWN[kind] * self._built_for

    def _do_without(self, kind: StageKind, error: StageLost) -> None:
        """What the card has no room for is done without until the next start."""
        if kind == "cagra" and self._index.staged:
            _log.error("the GPU takes no graph; it compares every crop instead (%s)", error)
            self._searching = replace(self._searching, kind="exact")
        else:
            _log.error("the GPU does not take the vectors; searches run on the CPU (%s)", error)
            self._searching = replace(self._searching, card=False)

    def build(self, kind: StageKind) -> bool:
        """Builds a stage of all vectors and has it adopted. False when they were rearranged, or it was closed.

        Raises StageLost when the card has no memory for it.
        """
        started = time.monotonic()
        arrangement, count = self._index.arrangement, self._index.crop_count
        kept = None if self._index.stage is None else self._index.stage.exact
        if kept is not None and kind in ("gpu", "cagra"):  # no second copy of it; an older graph gives up its memory
            done = self._index.adopt(kept, arrangement)
        else:
            begun = self._begun("gpu" if kind == "cagra" else kind, count)
            done = begun is not None and self._filled(begun, arrangement)
        if done and kind == "cagra":
            done = self._with_graph(arrangement)
        if done:
            self._built_for = count
            took = round(time.monotonic() - started, 1)
            _log.info("searches have a first stage", extra={"kind": kind, "crops": count, "seconds": took})
        return done

    def _begun(self, kind: StageKind, count: int) -> Stage | None:
        """One without vectors, None once it was closed."""
        if kind == "gpu" or kind == "cagra":
            return card_rows(self._index.dim)
        return FirstStage.trained(kind, self._sample(kind, count), count, lambda: not self._closed)

    def _filled(self, stage: Stage, arrangement: int) -> bool:
        """Whether it was given all vectors, and adopted."""
        while not self._closed:
            part = self._index.part(len(stage), PART, arrangement)
            if part is None:
                _log.info("the index was rearranged while its first stage was built; it is built again")
                return False
            if len(part):
                stage.add(part)
            elif self._index.adopt(stage, arrangement):
                return True
        return False

    def _with_graph(self, arrangement: int) -> bool:
        """Whether the rows on the card were given a graph, and both were adopted."""
        rows = None if self._index.stage is None else self._index.stage.exact
        if not isinstance(rows, CardRows):  # it was rearranged meanwhile
            return False
        vectors = self._copied(len(rows), arrangement)
        graph = None if vectors is None else self._built_aside(vectors)
        return graph is not None and self._index.adopt(Cagra(rows, graph), arrangement)

    def _copied(self, count: int, arrangement: int) -> NDArray[np.float16] | None:
        """The first vectors [count, D], which stay as they are; None when they were rearranged, or it was closed."""
        free = free_memory()
        if free is not None and free < 2 * count * self._index.dim:
            raise StageLost("while it is built, the main memory holds the vectors a second time, and has no room")
        vectors = np.empty((count, self._index.dim), np.float16)
        for start in range(0, count, PART):
            part = self._index.part(start, min(PART, count - start), arrangement)
            if part is None or self._closed:
                return None
            vectors[start : start + len(part)] = part
        return vectors

    def _built_aside(self, vectors: NDArray[np.float16]) -> faiss.Index | None:
        """Their graph; None once it was closed: nothing stops FAISS, so a thread that nobody waits for calls it."""
        graph: Future[faiss.Index] = Future()

        def build() -> None:
            try:
                graph.set_result(built_graph(vectors))
            except BaseException as error:
                graph.set_exception(error)

        threading.Thread(target=build, name="gallery-graph", daemon=True).start()
        while not self._closed:
            with suppress(TimeoutError):
                return graph.result(CHECK_SECONDS)
        return None

    def _sample(self, kind: Kind, count: int) -> NDArray[np.float32]:
        """Vectors [m, D] from all over the gallery."""
        random = np.random.default_rng(0)
        parts = []
        with self._index.reading() as columns:
            positions = np.flatnonzero(columns.searchable)
        chosen = np.sort(random.choice(positions, min(sample_size(kind, count), len(positions)), replace=False))
        for start in range(0, len(chosen), PART):
            with self._index.reading() as columns:
                known = chosen[start : start + PART]
                parts.append(self._index.stored(known[known < len(columns)]).astype(np.float32))
        return np.concatenate(parts)
