"""Builds the first stage of a large gallery in the background, while exact search answers."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import faiss
import numpy as np
from numpy.typing import NDArray

from service.gallery.index import Index
from service.gallery.periodic import Periodic
from service.gallery.records import GalleryUnavailable
from service.gallery.stage import FirstStage, Kind, sample_size
from service.gallery.stagefile import StageFile
from service.priority import give_way

IndexKind = Literal["auto", "exact", "ivf", "hnsw", "compressed"]

EXACT_UP_TO = 50_000  # crops; past that `auto` looks at likely ones first
LEAST_STAGED = 1_000  # fewer crops are searched exactly, whatever is set
KEPT_SHARE = 0.8  # of these sizes, down to which a stage is kept: crops come and go
OUTGROWN = 4  # a stage is built anew for a gallery of so many times the size
CHECK_SECONDS = 1.0
RETRY_SECONDS, MOST_RETRY_SECONDS = 60.0, 3600.0  # after a build that failed, twice as long each time
PART = 1024  # vectors copied at a time: writes wait no longer than for these

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Searching:
    """How the gallery is searched: `kind` as RESIGHT_INDEX says, with so many threads.

    `compressed` is `ivf` with its vectors in a file instead of in memory. Without `staged`, no first stage is built
    whatever the kind: for who enrols and does not search.
    """

    kind: IndexKind = "auto"
    threads: int = 1
    staged: bool = True

    @property
    def in_memory(self) -> bool:
        """Whether the vectors are."""
        return self.kind != "compressed"

    def stage_for(self, crops: int, has_one: bool = False) -> Kind | None:
        """The first stage for so many crops, None for an exact search. A gallery that `has_one` keeps it longer."""
        least = EXACT_UP_TO + 1 if self.kind == "auto" else LEAST_STAGED
        if not self.staged or self.kind == "exact" or crops < least * (KEPT_SHARE if has_one else 1):
            return None
        return "hnsw" if self.kind == "hnsw" else "ivf"


AUTO = Searching()


class StageBuilder:
    """Keeps an index supplied with the first stage that its size asks for, on a thread of its own."""

    def __init__(self, index: Index, searching: Searching, file: StageFile) -> None:
        self._index = index
        self._searching = searching
        self._file = file
        self._file_was_read = False
        self._closed = False
        self._built_for = 0
        self._wait = RETRY_SECONDS
        self._not_before = 0.0
        self._watch = Periodic("gallery-stage", CHECK_SECONDS, self._look_quietly)

    def close(self) -> None:
        """Ends the thread; a stage that is being built is given up. Idempotent."""
        self._closed = True
        self._watch.close()

    def keep(self) -> None:
        """Leaves the stage in use on the disk, where it is not yet; searches do without. To be called when closed."""
        if not self._index.staged or self._file.exists:
            return
        moment = self._file.moment()
        with suppress(GalleryUnavailable):
            if (given := self._index.give_up_stage()) is not None:
                self._file.write(*given, self._built_for, moment)

    def _look_quietly(self) -> None:
        if time.monotonic() < self._not_before:
            return
        try:
            with suppress(GalleryUnavailable):  # an index out of step: the gallery says so, once and not every second
                self._look()
            self._wait = RETRY_SECONDS
        except Exception:
            _log.exception("no first stage could be built; it is tried again in %g s", self._wait)
            self._not_before = time.monotonic() + self._wait
            self._wait = min(2 * self._wait, MOST_RETRY_SECONDS)

    def _look(self) -> None:
        crops = self._index.crop_count
        kind = self._searching.stage_for(crops, self._index.staged)
        if kind is None:
            if self._index.staged:
                self._index.adopt(None, self._index.arrangement)
            return
        if self._index.staged and crops < OUTGROWN * self._built_for:
            return
        give_way()
        faiss.omp_set_num_threads(self._searching.threads)
        if not self._take_up(kind):
            self.build(kind)

    def _take_up(self, kind: Kind) -> bool:
        """Has the stage on disk adopted. False where there is none that fits, and after the first time."""
        if self._file_was_read:
            return False
        self._file_was_read = True
        started, arrangement = time.monotonic(), self._index.arrangement
        found = self._file.read(kind, lambda count: self._index.crc32(count, arrangement))
        if found is None:
            return False
        return self._adopted(*found, arrangement, started, "the first stage was loaded from its file")

    def build(self, kind: Kind) -> bool:
        """Builds a first stage of all vectors and has it adopted. False when they were rearranged, or it was closed."""
        started, moment = time.monotonic(), self._file.moment()
        arrangement, count = self._index.arrangement, self._index.crop_count
        sample = self._sample(kind, count)
        stage = FirstStage.trained(kind, sample, count, lambda: not self._closed)
        del sample
        if stage is None or not self._completed(stage, arrangement):
            return False
        crops = self._index.crc32(len(stage), arrangement)
        if crops is not None:
            self._file.write(stage, crops, count, moment)
        return self._adopted(stage, count, arrangement, started, "searches have a first stage")

    def _adopted(self, stage: FirstStage, built_for: int, arrangement: int, started: float, message: str) -> bool:
        """Has it adopted, with the vectors that came meanwhile. False when they were rearranged, or it was closed."""
        while self._completed(stage, arrangement):
            if self._index.adopt(stage, arrangement):
                self._built_for = built_for
                took = round(time.monotonic() - started, 1)
                _log.info(message, extra={"kind": stage.kind, "crops": len(stage), "seconds": took})
                return True
        return False

    def _completed(self, stage: FirstStage, arrangement: int) -> bool:
        """Adds the vectors that it lacks. False when they were rearranged, or it was closed."""
        while not self._closed:
            part = self._index.part(len(stage), PART, arrangement)
            if part is None:
                _log.info("the index was rearranged while its first stage was built; it is built again")
                return False
            if not len(part):
                return True
            stage.add(part, self._searching.threads)
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
