"""How the index comes back at start, and the snapshot that makes that quick.

A snapshot holds the index as of one change. The database names the one that it accepts, so that one of another
database, or of this one before a backup was restored, is none. What was changed since is read from the change log.
In every doubt the index is built from the database alone.
"""

from __future__ import annotations

import logging
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from service.gallery import snapshot
from service.gallery.building import Searching
from service.gallery.changes import Changes
from service.gallery.columns import Frozen
from service.gallery.database import Database
from service.gallery.folder import SNAPSHOT_NAME, UNFINISHED_SNAPSHOT_NAME
from service.gallery.index import Index
from service.gallery.memory import require_memory
from service.gallery.periodic import Periodic
from service.gallery.records import GalleryError, GalleryUnavailable
from service.gallery.sections import CopyUnusable
from service.gallery.snapshot import Origin
from service.gallery.store import LOAD_CHUNK, Loaded, Model, Store

LEAST_CHANGES = 10_000  # that make a new snapshot worth its writing,
CHANGED_SHARE = 0.25  # or this share of the gallery, if that is more
CHECK_SECONDS = 30.0
CLOSING_SECONDS = 10.0  # a service that is stopped has 20 in all
WRITE_VECTORS = 1024  # copied at a time: writes wait no longer than for these
PRUNED_AT_ONCE = 4096

_log = logging.getLogger(__name__)


def open_index(store: Store, model: Model, searching: Searching) -> Index:
    """The index of all that is stored.

    Raises GalleryUnavailable when that does not fit into memory, or on the disk, and what reading the database raises;
    nothing about snapshots.
    """
    index = _from_snapshot(store, model, searching)
    if index is None:
        index = _empty(store, model, searching)
        _reserve(index, store)
        for chunk in store.load():
            index.load(chunk.entries, chunk.vectors, chunk.sound)
    return index


def _empty(store: Store, model: Model, searching: Searching) -> Index:
    if searching.in_memory:
        require_memory(store.count(), model.dim)
        return Index(model.dim, searching.threads)
    return Index(model.dim, searching.threads, store.database.folder.path)


def _reserve(index: Index, store: Store) -> None:
    crops = store.count()
    try:
        index.reserve(crops)
    except OSError as error:
        raise GalleryUnavailable(
            f"The embeddings of {crops:,} crops take {crops * 2 * index.dim / 2**30:.1f} GiB beside the gallery, for"
            f" which the disk of {store.database.folder.path} has no room ({error.strerror}): make some."
        ) from error


def _from_snapshot(store: Store, model: Model, searching: Searching) -> Index | None:
    folder = store.database.folder
    try:
        index, behind, erased = _load(store, model, searching)
    except FileNotFoundError:
        return None
    except (CopyUnusable, OSError, ValueError, LookupError, TypeError, AttributeError, MemoryError) as error:
        _log.warning("the snapshot of the index is of no use (%s); the index is built from the database", error)
        with suppress(GalleryUnavailable):
            folder.remove_copies()
        return None
    if erased:
        folder.remove_copies()
    _log.info("the index was loaded from its snapshot", extra={"crops": index.crop_count, "changes_behind": behind})
    return index


def _load(store: Store, model: Model, searching: Searching) -> tuple[Index, int, bool]:
    """The index, how many changes its snapshot was behind, and whether the snapshot has crops that are erased."""
    index = _empty(store, model, searching)
    with snapshot.reading(store.database.folder.path / SNAPSHOT_NAME) as found:
        with store.database.reading() as connection:
            accepted = connection.execute("SELECT sequence, token FROM snapshot").fetchone()
            current = _sequence(connection)
        if accepted is None or found.origin != Origin(model.sha256, model.dim, *accepted):
            raise CopyUnusable("it is of another model, or not the last one of this database")
        _reserve(index, store)
        index.thaw(found.frozen(), found.vectors())
    erased = _catch_up(store, index, found.origin.sequence)
    if index.crop_count != store.count():
        raise CopyUnusable("it has not the crops that the database has")
    return index, current - found.origin.sequence, erased


def _catch_up(store: Store, index: Index, sequence: int) -> bool:
    """Brings in what was changed after `sequence`; True when something was erased."""
    with store.database.reading() as connection:
        query = "SELECT DISTINCT row FROM changes WHERE seq > ? ORDER BY row"
        changed = np.array([row for (row,) in connection.execute(query, (sequence,))], np.int64)
    with index.reading() as columns:
        newest = int(columns.row.max(initial=0))
        known = np.isin(changed, columns.row)
    for start in range(0, len(changed), LOAD_CHUNK):
        for chunk in store.load(changed[start : start + LOAD_CHUNK].tolist()):
            _bring_in(index, chunk, newest)
            known[np.isin(changed, [entry.row for entry in chunk.entries])] = False
    gone = changed[known].tolist()
    index.apply(Changes(removed=gone))
    return bool(gone)


def _bring_in(index: Index, chunk: Loaded, newest: int) -> None:
    """Changes the crops up to the row `newest`, which the index has, and adds those behind it."""
    new = np.array([entry.row > newest for entry in chunk.entries], np.bool_)
    relabelled = [entry for entry, added in zip(chunk.entries, new, strict=True) if not added]
    replaced = [(chunk.entries[i].row, chunk.vectors[i]) for i in np.flatnonzero(~new & chunk.sound)]
    index.apply(Changes(relabelled=relabelled, replaced=replaced))
    added = [entry for entry, is_new in zip(chunk.entries, new, strict=True) if is_new]
    if added:
        index.load(added, chunk.vectors[new], chunk.sound[new])


@dataclass(frozen=True)
class _Capture:
    """The index at one change: a copy of its columns, and where their vectors stay as long as nothing is erased.

    That is as long as the folder counts as many `removals` of copies: see `DataFolder.removals`.
    """

    origin: Origin
    removals: int
    frozen: Frozen
    positions: NDArray[np.int64]
    file: BinaryIO


class SnapshotKeeper:
    """Writes the snapshots of an open gallery: now and then, and when it is closed. Thread-safe.

    An erasure removes both the snapshot and the one that is being written: see `DataFolder.remove_copies`.
    """

    def __init__(self, database: Database, index: Index, model: Model) -> None:
        self._database = database
        self._index = index
        self._model = model
        self._one_at_a_time = threading.Lock()
        self._closed = False
        self._watch = Periodic("gallery-snapshots", CHECK_SECONDS, self.write_if_due)

    def close(self) -> None:
        """Ends the watching and writes the last snapshot, unless that takes too long. Idempotent."""
        self._watch.close()
        if not self._closed:
            self._closed = True
            self.write(CLOSING_SECONDS)

    def write_if_due(self) -> None:
        """Writes a snapshot when so much has changed since the last one that it pays."""
        behind = self._behind()
        if behind >= max(LEAST_CHANGES, CHANGED_SHARE * self._index.crop_count):
            self.write()

    def write(self, within_seconds: float = float("inf")) -> bool:
        """Writes a snapshot of now, unless there is one, and forgets the changes before it.

        False when that was not possible (disk full, erased meanwhile, out of time), which is logged and no harm.
        """
        give_up_at = time.monotonic() + within_seconds
        try:
            with self._one_at_a_time:
                if self._behind() == 0:
                    return True
                capture = self._capture()
                with capture.file:
                    self._fill(capture, give_up_at)
                self._database.write(lambda connection: self._adopt(connection, capture))
                self._prune(capture.origin.sequence)
        except CopyUnusable as error:
            _log.info("the snapshot of the index was given up: %s", error)
            return False
        except (GalleryError, OSError, MemoryError) as error:
            _log.warning("no snapshot of the index was written: %s", error)
            return False
        except Exception:  # it is a copy: the service goes on, and comes to its end, without
            _log.exception("no snapshot of the index was written")
            return False
        return True

    def _behind(self) -> int:
        """How many changes the snapshot is behind; without one, all there ever were."""
        with self._database.reading() as connection:
            current = _sequence(connection)
            accepted = connection.execute("SELECT sequence FROM snapshot").fetchone()
        there = (self._database.folder.path / SNAPSHOT_NAME).exists()
        return current - accepted[0] if accepted is not None and there else current

    def _capture(self) -> _Capture:
        """Taken on the writer thread, where the index is as new as the database.

        An erasure that shares the commit has removed the copies already when this is published, and is in the index
        only afterwards; hence the count of removals from before.
        """
        taken: list[_Capture | BaseException] = []
        folder = self._database.folder

        def publish(found: tuple[int, int]) -> None:
            try:
                taken.append(self._freeze(*found))
            except Exception as error:  # it would end the writer
                taken.append(error)

        self._database.write(lambda connection: (_sequence(connection), folder.removals), publish)
        if isinstance(taken[0], BaseException):
            raise taken[0]
        return taken[0]

    def _freeze(self, sequence: int, removals: int) -> _Capture:
        self._require_none_erased(removals)
        with self._index.reading() as columns:
            frozen, positions = columns.freeze(), np.flatnonzero(columns.present)
        file = self._database.folder.new_file(UNFINISHED_SNAPSHOT_NAME)
        origin = Origin(self._model.sha256, self._model.dim, sequence, secrets.token_hex(16))
        return _Capture(origin, removals, frozen, positions, file)

    def _require_none_erased(self, removals: int) -> None:
        if self._database.folder.removals != removals:
            raise CopyUnusable("crops were erased meanwhile")

    def _fill(self, capture: _Capture, give_up_at: float) -> None:
        try:
            snapshot.write(capture.file, capture.origin, capture.frozen, self._vectors(capture, give_up_at))
        except BaseException:
            with suppress(OSError):
                (self._database.folder.path / UNFINISHED_SNAPSHOT_NAME).unlink()
            raise

    def _vectors(self, capture: _Capture, give_up_at: float) -> Iterator[NDArray[np.float16]]:
        for start in range(0, len(capture.positions), WRITE_VECTORS):
            with self._index.reading():
                self._require_none_erased(capture.removals)  # before the positions are used: they may be others'
                part = self._index.stored(capture.positions[start : start + WRITE_VECTORS])
            if time.monotonic() > give_up_at:
                raise TimeoutError("it took too long")
            yield part

    def _adopt(self, connection: sqlite3.Connection, capture: _Capture) -> None:
        """Gives the finished file its name and the database its token; fails where an erasure has removed it."""
        folder, origin = self._database.folder, capture.origin
        self._require_none_erased(capture.removals)
        try:
            (folder.path / UNFINISHED_SNAPSHOT_NAME).rename(folder.path / SNAPSHOT_NAME)
        except FileNotFoundError as error:
            raise CopyUnusable("crops were erased meanwhile") from error
        folder.sync()
        connection.execute("INSERT OR REPLACE INTO snapshot VALUES (1, ?, ?)", (origin.sequence, origin.token))

    def _prune(self, sequence: int) -> None:
        """Forgets the changes up to `sequence`, a few at a time, for others' writes wait."""

        def some(connection: sqlite3.Connection) -> int:
            query = "DELETE FROM changes WHERE seq IN (SELECT seq FROM changes WHERE seq <= ? ORDER BY seq LIMIT ?)"
            return connection.execute(query, (sequence, PRUNED_AT_ONCE)).rowcount

        while self._database.write(some) == PRUNED_AT_ONCE:
            pass


def _sequence(connection: sqlite3.Connection) -> int:
    """The number of the last change, also where its entry is forgotten."""
    found = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'changes'").fetchone()
    return 0 if found is None else int(found[0])
