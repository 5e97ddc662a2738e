"""Builds what searches of a large gallery ask first, in the background, while exact search answers."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

import faiss
import numpy as np
from numpy.typing import NDArray

from service.gallery.cagra import Cagra
from service.gallery.card import CardRows, card_rows, why_no_card
from service.gallery.graphbuilding import graph_of
from service.gallery.index import PART, Index
from service.gallery.memory import require_card_memory
from service.gallery.periodic import Periodic
from service.gallery.records import GalleryUnavailable
from service.gallery.stage import FirstStage, Kind, Stage, StageKind, StageLost, sample_size
from service.gallery.stagefile import StageFile
from service.priority import give_way

IndexKind = Literal["auto", "exact", "ivf", "hnsw", "compressed", "cagra"]

EXACT_UP_TO = 50_000  # crops; past that `auto` looks at likely ones first, and `cagra` walks its graph
LEAST_STAGED = 1_000  # fewer crops are searched exactly by the CPU, whatever is set
KEPT_SHARE = 0.8  # of these sizes, down to which a stage is kept: crops come and go
OUTGROWN = {"ivf": 4.0, "hnsw": 4.0, "cagra": 1.5}  # times its size that a gallery grows before it is built anew
ON_CARD: tuple[IndexKind, ...] = ("auto", "exact", "cagra")  # the others are for the CPU
CHECK_SECONDS = 1.0
RETRY_SECONDS, MOST_RETRY_SECONDS = 60.0, 3600.0  # after a build that failed, twice as long each time
BUILT, LOADED = "searches have a first stage", "the first stage was loaded from its file"

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

    def stage_for(self, crops: int, present: StageKind | None = None) -> StageKind | None:
        """What so many crops are searched by, None for comparing them all on the CPU.

        What is `present` is kept down to KEPT_SHARE of the size that it is taken from.
        """
        if present is not None and self._wanted(int(crops / KEPT_SHARE)) == present:
            return present
        return self._wanted(crops)

    def _wanted(self, crops: int) -> StageKind | None:
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
        crops, stage = self._index.crop_count, self._index.stage
        kind = self._searching.stage_for(crops, None if stage is None else stage.kind)
        if kind is None:
            if stage is not None:
                self._index.adopt(None, self._index.arrangement)
            return
        if stage is not None and stage.kind == kind and not self._outgrown(kind, crops):
            return
        give_way()
        faiss.omp_set_num_threads(self._searching.threads)
        if kind == "gpu" or kind == "cagra":
            try:
                self._build_on_card(kind)
            except StageLost as error:
                self._do_without(kind, error)
        elif not self._take_up(kind):
            self.build(kind)

    def _outgrown(self, kind: StageKind, crops: int) -> bool:
        return kind in OUTGROWN and crops >= OUTGROWN[kind] * self._built_for

    def _take_up(self, kind: Kind) -> bool:
        """Has the stage on disk adopted. False where there is none that fits, and after the first time."""
        if self._file_was_read:
            return False
        self._file_was_read = True
        started, arrangement = time.monotonic(), self._index.arrangement
        found = self._file.read(kind, lambda count: self._index.crc32(count, arrangement))
        return found is not None and self._adopted(*found, arrangement, started, LOADED)

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
        return self._adopted(stage, count, arrangement, started)

    def _build_on_card(self, kind: Literal["gpu", "cagra"]) -> bool:
        """Builds a stage on the card and has it adopted, as `build`, but keeps nothing on disk. Raises StageLost."""
        started = time.monotonic()
        arrangement, count, before = self._index.arrangement, self._index.crop_count, self._index.stage
        rows = None if before is None else before.exact
        if isinstance(rows, CardRows):  # no second copy of them; an older graph gives up its memory
            done = self._index.adopt(rows, arrangement)
        else:
            rows = card_rows(self._index.dim)
            done = self._adopted(rows, count, arrangement, started)
        if not done or kind == "gpu":
            return done
        graph = graph_of(self._index, len(rows), arrangement, lambda: not self._closed)
        return graph is not None and self._put_in_use(Cagra(rows, graph), count, arrangement, started)

    def _do_without(self, kind: StageKind, error: StageLost) -> None:
        """What the card has no room for is done without until the next start."""
        if kind == "cagra" and self._index.staged:
            _log.error("the GPU takes no graph; it compares every crop instead (%s)", error)
            self._searching = replace(self._searching, kind="exact")
        else:
            _log.error("the GPU does not take the vectors; searches run on the CPU (%s)", error)
            self._searching = replace(self._searching, card=False)

    def _adopted(self, stage: Stage, built_for: int, arrangement: int, started: float, message: str = BUILT) -> bool:
        """Has it adopted, with the vectors that came meanwhile. False when they were rearranged, or it was closed."""
        while self._completed(stage, arrangement):
            if self._put_in_use(stage, built_for, arrangement, started, message):
                return True
        return False

    def _put_in_use(self, stage: Stage, built_for: int, arrangement: int, started: float, message: str = BUILT) -> bool:
        """Has it adopted, and says so. False when it has not what the index has."""
        if not self._index.adopt(stage, arrangement):
            return False
        self._built_for = built_for
        took = round(time.monotonic() - started, 1)
        _log.info(message, extra={"kind": stage.kind, "crops": len(stage), "seconds": took})
        return True

    def _completed(self, stage: Stage, arrangement: int) -> bool:
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
