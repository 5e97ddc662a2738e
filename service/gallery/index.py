"""The searchable gallery in memory: vectors, and the columns beside them. A cache of the store.

Vectors are kept as float16, as stored. What finds candidates may round as it likes; distances that leave this
module are measured by one fixed rule, see `Vectors.measure`.
"""

from __future__ import annotations

import logging
import threading
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.gallery.changes import Changes, Entry
from service.gallery.columns import Columns, Frozen, Selection
from service.gallery.finding import Compared, Found, Scanned, compare_all, sums_error
from service.gallery.lock import ReadWriteLock
from service.gallery.records import GalleryUnavailable
from service.gallery.stage import FirstStage, Stage, StageLost
from service.gallery.vectors import Vectors

NARROW = 0.01  # below this share of the gallery, measuring vectors one by one beats a masked scan
FEW = 4  # fewer queries than these are faster compared one by one
MOST_COMPARED = 1 << 24  # distances held at once: 64 MiB
MOST_MULTIPLIED = 1 << 28  # numbers, by exact queries beside staged ones; they are gone over again when measured: 0.1 s
AT_ONCE_ON_CARD = 256  # queries: the distances stay there
PART = 1024  # vectors that `part` should be asked for at a time: writes wait no longer than for these
CHECKED_VECTORS = 4096  # from all over the gallery, of which its checksum is made: milliseconds
COMPACT_SHARE, COMPACT_MINIMUM = 0.25, 1024  # removed vectors that are worth moving the others together

_log = logging.getLogger(__name__)


class Index:
    """Vectors and columns, position by position. `reading()` holds off `apply` and `load`.

    With a `folder`, the vectors are in a file there and not in memory.

    `crop_count` and `identity_count` are how many crops are enrolled and how many identities have one: plain
    integers, to be read without the lock.
    """

    def __init__(self, dim: int, threads: int = 1, folder: Path | None = None) -> None:
        self.crop_count = 0
        self.identity_count = 0
        self.columns = Columns()
        self.arrangement = 0  # another number after vectors have moved or were replaced
        self._in_step = True
        self._stage: Stage | None = None
        self._threads = threads
        self._vectors = Vectors(dim, threads, folder)
        self._lock = ReadWriteLock()
        self._making_room = threading.Lock()
        self._expected = 0  # crops that room is kept for

    @property
    def dim(self) -> int:
        return self._vectors.dim

    @contextmanager
    def reading(self) -> Iterator[Columns]:
        """The columns, unchanged for the time of the block; `find` and `measure` belong inside too.

        Raises GalleryUnavailable once a change was cut short: no answer is better than a wrong one.
        """
        with self._lock.reading():
            self._require_in_step()
            yield self.columns

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Holds off readers; what cuts the block short, as lack of memory, leaves the index out of step for good."""
        with self._lock.writing():
            self._require_in_step()
            self._in_step = False
            yield
            self.crop_count = self.columns.crop_count
            self.identity_count = self.columns.identity_count
            self._in_step = True

    def _require_in_step(self) -> None:
        if not self._in_step:
            raise GalleryUnavailable("The index has lost step with the database; restart the service.")

    @property
    def stage(self) -> Stage | None:
        """What searches ask first, if there is one by now."""
        return self._stage

    @property
    def staged(self) -> bool:
        """Whether searches ask a stage first."""
        return self._stage is not None

    def at_once(self, exact: bool) -> int:
        """How many queries `find` should get at a time; where searches are staged, fewer of those that ask for `exact`.

        Writes wait for them, and all other queries for the writes.
        """
        if self._stage is not None and self._stage.exact is not None:
            return AT_ONCE_ON_CARD
        count = max(len(self._vectors), 1)
        most = MOST_COMPARED // count
        if exact and self._stage is not None:
            most = min(most, MOST_MULTIPLIED // (count * self.dim))
        return max(1, most)

    def find(self, queries: NDArray[np.float32], selections: Sequence[Selection], exact: Sequence[bool]) -> list[Found]:
        """What finds the crops near each of these queries [m, D]; to be called, and used, inside `reading`.

        It may take 4 bytes for every query and crop: ask for `at_once` at a time.
        """
        found: dict[int, Found] = {}
        by_stage: defaultdict[Stage | None, list[int]] = defaultdict(list)
        for at, (query, selection, all_of_them) in enumerate(zip(queries, selections, exact, strict=True)):
            if selection.mask is not None and selection.count <= NARROW * len(selection.mask):
                positions = np.flatnonzero(selection.mask)
                squared = self.measure(query, positions)
                found[at] = Compared(positions, squared, selection.count, sums_error(self.dim))
            else:
                by_stage[self._stage.exact if self._stage is not None and all_of_them else self._stage].append(at)
        for stage, places in by_stage.items():
            part = queries[places], [selections[at] for at in places]
            finders = self._compare(*part) if stage is None else stage.found(self._vectors, *part)
            found |= zip(places, finders, strict=True)
        return [found[at] for at in range(len(queries))]

    def _compare(self, queries: NDArray[np.float32], selections: Sequence[Selection]) -> Sequence[Found]:
        """Compares queries [m, D] with all vectors."""
        masks = [selection.mask for selection in selections]
        if len(queries) >= FEW or not self._vectors.scanned:
            return compare_all(self._vectors, queries, masks)
        return [Scanned(self._vectors, query, mask) for query, mask in zip(queries, masks, strict=True)]

    def measure(self, query: NDArray[np.float32], positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Squared distances [n] of the query [D] to these positions; equal vectors get equal distances."""
        return self._vectors.measure(query, positions)

    def reserve(self, count: int) -> None:
        """Makes room for `count` crops in all, before the first is loaded."""
        with self._changing():
            self._vectors.reserve(count)
            self.columns.reserve(count)

    @contextmanager
    def room_for(self, count: int) -> Iterator[None]:
        """Keeps room on the disk for `count` crops more, for the time of the block, in which `apply` brings them in.

        What is committed must get in, so the room is made before. Raises OSError when the disk has none.
        """
        with self._making_room:
            self._vectors.make_room(len(self._vectors) + self._expected + count)
            self._expected += count
        try:
            yield
        finally:
            with self._making_room:
                self._expected -= count

    def load(self, entries: Sequence[Entry], vectors: NDArray[np.float16], sound: NDArray[np.bool_]) -> None:
        """Adds stored crops with ascending rows; those not `sound` are listed but not searched."""
        with self._changing():
            self._append(vectors)
            self.columns.append(entries, sound)

    def thaw(self, frozen: Frozen, vectors: Iterable[NDArray[np.float16]]) -> None:
        """Takes over frozen columns and the vectors that belong to them, in parts; there must be no crops yet."""
        with self._changing():
            for part in vectors:
                self._vectors.append(part)
            self.columns.thaw(frozen)

    def part(self, start: int, count: int, arrangement: int) -> NDArray[np.float16] | None:
        """A copy of up to `count` vectors from the position `start` on; None once they are arranged otherwise."""
        with self.reading() as columns:
            if self.arrangement != arrangement:
                return None
            return self._vectors.stored(np.arange(start, min(start + count, len(columns))))

    def adopt(self, stage: Stage | None, arrangement: int) -> bool:
        """Searches with this stage from now on, None: without. False when it has not what the index has."""
        with self._changing():
            fits = stage is None or (self.arrangement == arrangement and len(stage) == len(self._vectors))
            if fits:
                self._stage = stage
        return fits

    def give_up_stage(self) -> tuple[FirstStage, int] | None:
        """Searches without first stage from now on; gives it, of the crops present alone, with their checksum.

        None where there is none, where it is of a kind that removed crops stay in, and on a card: there it stays.
        """
        with self._changing():
            stage, present = self._stage, self.columns.present
            if not isinstance(stage, FirstStage):
                return None
            self._stage = None
            return (stage, self._crc32(np.flatnonzero(present))) if stage.keep(present) else None

    def crc32(self, count: int, arrangement: int) -> int | None:
        """A checksum of the first `count` crops; None where some were removed, or once they are arranged otherwise."""
        with self.reading() as columns:
            if self.arrangement != arrangement or not columns.present[:count].all():
                return None
            return self._crc32(np.arange(min(count, len(columns))))

    def _crc32(self, positions: NDArray[np.int64]) -> int:
        """A checksum of the crops there: of all their columns that place them, and of a sample of sound vectors."""
        sound = positions[self.columns.searchable[positions]]
        sampled = sound[np.linspace(0, len(sound) - 1, min(CHECKED_VECTORS, len(sound)), dtype=np.int64)]
        return zlib.crc32(self._vectors.stored(sampled).tobytes(), self.columns.crc32(positions))

    def _append(self, vectors: NDArray[np.float16]) -> None:
        self._vectors.append(vectors)
        if self._stage is not None:
            try:
                self._stage.add(vectors, self._threads)
            except StageLost as error:
                _log.error("the card takes no more vectors; they are searched without it (%s)", error)
                self._stage = None

    def _rearranged(self) -> None:
        """The stage no longer fits; exact search answers until there is another."""
        self.arrangement += 1
        self._stage = None

    def stored(self, positions: NDArray[np.int64]) -> NDArray[np.float16]:
        """A copy of the vectors [n, D] there; to be called inside `reading`."""
        return self._vectors.stored(positions)

    def apply(self, changes: Changes) -> None:
        """Brings in one committed write. Must be called in the order of the commits.

        Raises what cut it short, as MemoryError; from then on GalleryUnavailable, like `reading`.
        """
        with self._changing():
            if changes.added:
                self._append(np.stack(changes.vectors))
                self.columns.append(changes.added, np.ones(len(changes.added), np.bool_))
            for row, vector in changes.replaced:
                position = self.columns.position(row)
                self._vectors.replace(position, vector)
                self._rearranged()
                self.columns.mark_searchable(position)
            for entry in changes.relabelled:
                self.columns.relabel(entry)
            for row in changes.removed:
                self._vectors.blank(self.columns.position(row))
                self.columns.remove(row)
            if changes.removed:
                self._compact_if_due()

    def _compact_if_due(self) -> None:
        present = self.columns.present
        removed = len(present) - int(np.count_nonzero(present))
        if removed >= COMPACT_MINIMUM and removed >= COMPACT_SHARE * len(present):
            self._vectors.keep(present)
            self.columns.keep(present)
            self._rearranged()
