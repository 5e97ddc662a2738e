"""The embedded gallery's use cases: enrol, query, look up, delete. SQLite is the truth, the index a cache.

All methods block and may be called from any thread. What a call has acknowledged, every later call sees: `strong`,
which the distributed gallery heeds, is always true here.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.gallery import ranking
from service.gallery.answering import matches_of, verdict_of
from service.gallery.audit import Audit
from service.gallery.building import AUTO, Searching, StageBuilder
from service.gallery.closing import Closing
from service.gallery.columns import Columns
from service.gallery.cursors import decode_row, encode_cursor
from service.gallery.database import translated_errors
from service.gallery.erasures import Erasures
from service.gallery.identities import Identities
from service.gallery.index import Index
from service.gallery.ranking import ImpostorCurve
from service.gallery.records import (
    Answer,
    Crop,
    Enrolled,
    Filters,
    InvalidEmbedding,
    NewCrop,
    Page,
    Probe,
    QueryOptions,
)
from service.gallery.recovery import SnapshotKeeper, open_index
from service.gallery.retention import Retention
from service.gallery.space import free_bytes, shortage
from service.gallery.stage import StageKind
from service.gallery.stagefile import StageFile
from service.gallery.store import Model, Store

_LISTED = "1"  # the name, in its cursors, of the list of crops


class Gallery(Closing):
    """A folder of enrolled crops that belongs to one model. Make it with `open`, give it back with `close`.

    What people decide about them is in `identities`, erasing many at once in `erasures`.
    """

    def __init__(
        self,
        store: Store,
        index: Index,
        snapshots: SnapshotKeeper,
        curve: ImpostorCurve | None,
        match_distance: float | None,
        builder: StageBuilder,
    ) -> None:
        self._store = store
        self._index = index
        self._snapshots = snapshots
        self._curve = curve
        self._match_distance = match_distance
        self._builder = builder
        self.identities = Identities(store.database, index.apply)
        self.erasures = Erasures(store.database, index.apply)

    @classmethod
    def open(
        cls,
        folder: Path,
        model_sha256: str,
        model_name: str,
        dim: int,
        curve: ImpostorCurve | None,
        match_distance: float | None,
        searching: Searching = AUTO,
    ) -> Gallery:
        """Opens, or makes, the gallery in `folder`; an empty one adopts the model.

        It can be searched exactly at once; what `searching` asks for beyond that is built in the background.

        `match_distance` in [0, 1] overrides what `curve` says about the distance of a match. A damaged
        vector is logged and left out of searches, and is no reason not to open.

        Raises: ModelMismatch, GalleryLocked, GalleryTooNew, GalleryDamaged, GalleryUnavailable.
        """
        model = Model(model_sha256, model_name, dim)
        store = Store.open(folder, model)
        try:
            searching = searching.fitted(store.count(), dim)
            index = open_index(store, model, searching)
        except BaseException:
            store.close()
            raise
        builder = StageBuilder(index, searching, StageFile(store.database, model_sha256, dim))
        return cls(store, index, SnapshotKeeper(store.database, index, model), curve, match_distance, builder)

    def close(self) -> None:
        """Finishes the writes under way, leaves the index on disk and frees the folder, whatever fails. Idempotent."""
        with ExitStack() as ending:  # the last first
            ending.callback(self._store.close)
            ending.callback(self._builder.keep)
            ending.callback(self._snapshots.close)
            ending.callback(self._builder.close)

    def retention(self, audit: Audit, days: int) -> Retention:
        """What erases, when it is run, the crops that were enrolled more than `days` ago."""
        return Retention(self._store.database, self._index.apply, audit, days)

    @property
    def trouble(self) -> str | None:
        """Why the gallery cannot do its work, None while it can. Never blocks.

        Writes are refused then. Reads go on, but for those of an index that a failed write left incomplete:
        they raise GalleryUnavailable, too.
        """
        return self._store.trouble

    @property
    def alive(self) -> bool:
        """Whether there is no `trouble`."""
        return self.trouble is None

    @property
    def shortage(self) -> str | None:
        """Why nothing more should be enrolled, None while there is room on the disk. Asks the file system."""
        return shortage(self._store.database.folder.path)

    @property
    def free_bytes(self) -> int | None:
        """Room on its disk, None where the folder is gone. Asks the file system."""
        return free_bytes(self._store.database.folder.path)

    @property
    def index_lag(self) -> int:
        """Writes that are committed and that searches do not see yet. Never blocks."""
        return self._store.unpublished

    @property
    def crop_count(self) -> int:
        """How many crops are enrolled. Never blocks."""
        return self._index.crop_count

    @property
    def stage(self) -> StageKind | None:
        """What searches ask first by now, None: they compare every crop on the CPU. Never blocks."""
        stage = self._index.stage
        return None if stage is None else stage.kind

    @property
    def identity_count(self) -> int:
        """How many identities have a crop. Never blocks."""
        return self._index.identity_count

    def enrol(self, items: Sequence[NewCrop]) -> list[Enrolled]:
        """Stores all items or, when it raises, none; one answer an item, in order.

        A new crop_id is `created`. A known one is `duplicate`, or `updated` where labels given differ from
        those stored (missing ones stay) or where its stored vector was damaged and is replaced. An identity that
        a person has marked the crop not to be is not taken.

        Raises:
            UnknownCrop: an item without embedding is not enrolled (it may have been deleted meanwhile).
            InvalidEmbedding: wrong size, not finite, or zero.
            ValueError: a crop_id is no UUID in its usual form.
            GalleryUnavailable: nothing could be written, as with a full disk; or the gallery failed while it
                held the items, and a restart shows whether they were stored.
        """
        vectors = []
        for item in items:
            if not _is_uuid(item.crop_id):
                raise ValueError(f"a crop_id must be a UUID in lower case, not {item.crop_id!r}")
            embedding = item.embedding
            vectors.append(None if embedding is None else ranking.stored_form(embedding, self._index.dim))
        added = sum(vector is not None for vector in vectors)  # at most
        with translated_errors(self._store.database.path), self._index.room_for(added):
            return self._store.enrol(items, vectors, self._index.apply)

    def known(self, crop_ids: Iterable[str]) -> set[str]:
        """Those already enrolled: `enrol` takes them without embedding. One with a damaged vector is not."""
        return self._store.known(crop_ids)

    def get(self, crop_id: str, *, strong: bool = True) -> Crop:
        """Raises UnknownCrop."""
        return self._store.crop(crop_id)

    def image(self, crop_id: str, *, strong: bool = True) -> bytes | None:
        """The stored JPEG thumbnail, None if none was stored. Raises UnknownCrop."""
        return self._store.picture(crop_id)

    def embeddings(self, crop_ids: Sequence[str], *, strong: bool = True) -> NDArray[np.float32]:
        """Stored embeddings [n, D], in order. Raises UnknownCrop; GalleryDamaged for a damaged one."""
        return self._store.vectors(crop_ids).astype(np.float32)

    def delete(self, crop_id: str) -> None:
        """Erases the crop, its embedding and its picture for good. Raises UnknownCrop, GalleryUnavailable.

        Where something reads the database meanwhile, its log may keep their bytes until that lets go.
        """
        self._store.delete(crop_id, self._index.apply)

    def page(self, filters: Filters, limit: int, cursor: str | None, *, strong: bool = True) -> Page:
        """Up to `limit` >= 1 crops that pass the filters, in the order in which they were enrolled.

        Following `next_cursor` meets every crop that stays enrolled exactly once, whatever is enrolled or
        deleted meanwhile. Raises InvalidCursor; ValueError for another limit.
        """
        if limit < 1:
            raise ValueError("limit must be at least 1: empty pages never come to an end")
        after = 0 if cursor is None else decode_row(_LISTED, cursor)
        with self._index.reading() as columns:
            rows = columns.row[columns.select(filters)]
        start = int(np.searchsorted(rows, after, side="right"))
        part = rows[start : start + limit].tolist()
        found = self._store.crops(part)
        crops = tuple(found[row] for row in part if row in found)
        return Page(crops, encode_cursor(_LISTED, str(part[-1])) if start + limit < len(rows) else None)

    def query(self, embeddings: NDArray[np.float32], options: QueryOptions) -> Answer:
        """Ranks the identities by their distance to one person, seen in one or several shots [M, D].

        The verdict looks at the two nearest candidates before `max_distance` and `top_k` cut the answer; a
        match that `max_distance` cut off is `unknown`. An empty gallery says so even without a curve.

        Raises InvalidEmbedding, GalleryUnavailable.
        """
        (answer,) = self.query_all([Probe(embeddings, options)])
        if isinstance(answer, InvalidEmbedding):
            raise answer
        return answer

    def query_all(self, probes: Sequence[Probe]) -> list[Answer | InvalidEmbedding]:
        """Answers many queries at once, which takes much less time than one after the other. Order is kept.

        Each answer is of one moment; writes may come between two of them.

        Raises GalleryUnavailable.
        """
        answers: dict[int, Answer | InvalidEmbedding] = {}
        combined: dict[int, NDArray[np.float32]] = {}
        for at, probe in enumerate(probes):
            try:
                combined[at] = ranking.combine(probe.embeddings, self._index.dim)
            except InvalidEmbedding as error:
                answers[at] = error
        places = list(combined)
        while places:
            with self._index.reading() as columns:  # of one part: writes wait for it, and new queries for them
                step = self._index.at_once(any(probes[at].options.exact for at in places))
                part, places = places[:step], places[step:]
                queries = np.stack([combined[at] for at in part])
                answers |= zip(part, self._ranked(columns, queries, [probes[at].options for at in part]), strict=True)
        return [answers[at] for at in range(len(probes))]

    def _ranked(
        self, columns: Columns, queries: NDArray[np.float32], options: Sequence[QueryOptions]
    ) -> Iterator[Answer]:
        if not columns.crop_count:
            yield from (Answer("empty_gallery", (), 0, exact=True) for _ in queries)
            return
        selections = [columns.selection(one.filters) for one in options]
        found = self._index.find(queries, selections, [one.exact for one in options])
        for query, one, selection, near in zip(queries, options, selections, found, strict=True):
            below = ranking.match_distance(self._curve, self._match_distance, selection.candidates)
            ranking_size = max(one.top_k, 2)  # the verdict needs the second
            measure = partial(self._index.measure, query)
            nearest = ranking.rank(near, measure, columns, selection.mask, selection.count, ranking_size)
            matches = matches_of(nearest, columns, one, below)
            verdict = verdict_of(nearest, below, matches)
            match_distance = None if below is None else float(below)
            yield Answer(verdict, matches, selection.count, near.exact, match_distance)


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
