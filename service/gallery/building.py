"""Builds the first stage of a large gallery in the background, while exact search answers."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from typing import Literal

import faiss
import numpy as np
from numpy.typing import NDArray

from service.gallery.index import Index
from service.gallery.periodic import Periodic
from service.gallery.stage import FirstStage, Kind, sample_size
from service.priority import give_way

IndexKind = Literal["auto", "exact", "ivf", "hnsw", "compressed"]

EXACT_UP_TO = 50_000  # crops; past that `auto` looks at likely ones first
LEAST_STAGED = 1_000  # crops that are searched exactly, whatever is set
OUTGROWN = 4  # a stage is built anew for a gallery of so many times the size
CHECK_SECONDS = 1.0
PART = 1024  # vectors copied at a time: writes wait no longer than for these

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Searching:
    """How the gallery is searched: `kind` as RESIGHT_INDEX says, with so many threads.

    `compressed` is `ivf` with its vectors in a file instead of in memory.
    """

    kind: IndexKind = "auto"
    threads: int = 1

    @property
    def in_memory(self) -> bool:
        """Whether the vectors are."""
        return self.kind != "compressed"

    def stage_for(self, crops: int) -> Kind | None:
        """The first stage for so many crops, None for an exact search."""
        if self.kind == "exact" or crops < LEAST_STAGED or (self.kind == "auto" and crops <= EXACT_UP_TO):
            return None
        return "hnsw" if self.kind == "hnsw" else "ivf"


AUTO = Searching()


class StageBuilder:
    """Keeps an index supplied with the first stage that its size asks for, on a thread of its own."""

    def __init__(self, index: Index, searching: Searching) -> None:
        self._index = index
        self._searching = searching
        self._closed = False
        self._built_for = 0
        self._watch = Periodic("gallery-stage", CHECK_SECONDS, self._look)

    def close(self) -> None:
        """Ends the thread; a stage that is being built is given up. Idempotent."""
        self._closed = True
        self._watch.close()

    def _look(self) -> None:
        crops = self._index.crop_count
        kind = self._searching.stage_for(crops)
        if kind is None:
            if self._index.staged:
                self._index.adopt(None, self._index.arrangement)
            return
        if self._index.staged and crops < OUTGROWN * self._built_for:
            return
        give_way()
        faiss.omp_set_num_threads(max(1, (os.cpu_count() or 1) // 2))
        self.build(kind)

    def build(self, kind: Kind) -> bool:
        """Builds a first stage of all vectors and has it adopted. False when they were rearranged meanwhile."""
        started = time.monotonic()
        arrangement, count = self._index.arrangement, self._index.crop_count
        sample = self._sample(kind, count)
        stage = FirstStage.trained(kind, sample, count)
        del sample
        while not self._closed:
            part = self._index.part(len(stage), PART, arrangement)
            if part is None:
                _log.info("the index was rearranged while its first stage was built; it is built again")
                return False
            if len(part):
                stage.add(part)
            elif self._index.adopt(stage, arrangement):
                self._built_for = count
                took = round(time.monotonic() - started, 1)
                _log.info("searches have a first stage", extra={"kind": kind, "crops": len(stage), "seconds": took})
                return True
        return False

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
