"""The gallery's use cases over Milvus, for any number of replicas at once."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import faiss
import numpy as np
from numpy.typing import NDArray

from service.gallery import ranking
from service.gallery.closing import Closing
from service.gallery.labels import merged
from service.gallery.periodic import Periodic
from service.gallery.ranking import ImpostorCurve
from service.gallery.records import (
    Answer,
    Crop,
    Enrolled,
    EnrolStatus,
    Filters,
    GalleryUnavailable,
    InvalidEmbedding,
    NewCrop,
    Page,
    Probe,
    QueryOptions,
    UnknownCrop,
)
from service.gallery.store import Model
from service.gallery_milvus.address import Address
from service.gallery_milvus.collections import Collections, open_collections
from service.gallery_milvus.crops import Crops, Stored
from service.gallery_milvus.erasures import MilvusErasures
from service.gallery_milvus.identities import MilvusIdentities
from service.gallery_milvus.listing import page_of
from service.gallery_milvus.pictures import NoPictures, Pictures
from service.gallery_milvus.rows import KEY, LABELS, VECTOR, crop_of, labels_of, same_labels, vector_of
from service.gallery_milvus.searching import Searcher
from service.gallery_milvus.server import Server, among

CHECK_SECONDS = 2.0
MOST_AT_ONCE = 32  # queries: as many as the service hands over together, so that none waits for another's deadline

_log = logging.getLogger(__name__)


class MilvusGallery(Closing):
    """A collection of enrolled crops that belongs to one model. Make it with `open`, give it back with `close`.

    Reads see what was acknowledged up to some seconds ago, or all of it when they are `strong`, as those are that a
    write begins with. Every method raises GalleryUnavailable when Milvus does not answer in time.
    """

    def __init__(self, crops: Crops, model: Model, searcher: Searcher) -> None:
        self._crops = crops
        self._server, self._collections = crops.server, crops.collections
        self._dim = model.dim
        self._searcher = searcher
        self.identities = MilvusIdentities(crops)
        self.erasures = MilvusErasures(crops)
        self._trouble: str | None = None
        self._counts = 0, 0
        self._check()
        self._checking = Periodic("gallery-milvus", CHECK_SECONDS, self._check)

    @classmethod
    def open(
        cls,
        address: Address,
        model: Model,
        curve: ImpostorCurve | None = None,
        match_distance: float | None = None,
        *,
        index: str = "auto",
        token: str = "",
        pictures: Pictures | None = None,
    ) -> MilvusGallery:
        """Opens, or makes, the gallery at an address; an empty one adopts the model.

        Waits two minutes for Milvus. `index` is one of `BUILT`, for a gallery that is made. Raises ModelMismatch,
        GalleryTooNew, GalleryDamaged, GalleryUnavailable.
        """
        server = Server(address, token)
        try:
            collections = open_collections(server, address.collection, model, index)
            crops = Crops(server, collections, pictures or NoPictures())
            return cls(crops, model, Searcher(server, collections, model.dim, curve, match_distance))
        except BaseException:
            server.close()
            raise

    def close(self) -> None:
        """Ends the connection. Idempotent."""
        self._checking.close()
        self._trouble = "the gallery is closed"
        self._server.close()

    @property
    def collections(self) -> Collections:
        """Where in Milvus it is, and its audit log's secret."""
        return self._collections

    @property
    def crops(self) -> Crops:
        """The crops, for jobs over all of them."""
        return self._crops

    def _check(self) -> None:
        try:
            self._counts = (
                self._server.count(self._collections.crops),
                self._server.count(self._collections.names),
            )
        except GalleryUnavailable as error:
            if self._trouble is None:
                _log.warning("%s", error)
            self._trouble = str(error)
        else:
            if self._trouble is not None:
                _log.info("Milvus answers again")
            self._trouble = None

    @property
    def trouble(self) -> str | None:
        """Why Milvus does not answer, None while it does; some seconds old. Never blocks."""
        return self._trouble

    @property
    def alive(self) -> bool:
        """Whether there is no `trouble`."""
        return self._trouble is None

    @property
    def shortage(self) -> str | None:
        """Milvus looks after its own room, and refuses what it cannot take."""
        return None

    @property
    def free_bytes(self) -> int | None:
        """Not known of Milvus."""
        return None

    @property
    def index_lag(self) -> int:
        """Not known of Milvus: 0."""
        return 0

    @property
    def crop_count(self) -> int:
        """How many crops are enrolled; some seconds old. Never blocks."""
        return self._counts[0]

    @property
    def identity_count(self) -> int:
        """How many identities have a crop; some seconds old. Never blocks."""
        return self._counts[1]

    def enrol(self, items: Sequence[NewCrop]) -> list[Enrolled]:
        """Stores the items; one answer an item, in order, with the meaning that it has in the embedded gallery.

        What cannot be stored is refused before anything is; when Milvus fails on the way, some may be stored, and the
        same call again does the rest. Raises as the embedded gallery does.
        """
        vectors = [self._stored_form(item) for item in items]
        given = {item.crop_id: vector for item, vector in zip(items, vectors, strict=True) if vector is not None}
        known = self._crops.find(sorted({item.crop_id for item in items}), given)
        written: dict[str, Stored] = {}
        pictures: dict[str, bytes] = {}
        enrolled = []
        for item, vector in zip(items, vectors, strict=True):
            before = written.get(item.crop_id, known.get(item.crop_id))
            if before is None:
                if vector is None:
                    raise UnknownCrop(item.crop_id)
                written[item.crop_id] = Stored(_new(item), vector, self._crops.next_seq())
                if item.thumbnail is not None:
                    pictures[item.crop_id] = item.thumbnail
                enrolled.append(Enrolled(item.crop_id, "created", item.labels.identity, item.labels.camera))
                continue
            labels = merged(labels_of(before.crop), before.crop.not_identity, item.labels)
            after = replace(before.crop, **vars(labels))
            same = same_labels(before.crop, after) and not before.mended
            status: EnrolStatus = "duplicate" if same else "updated"
            if status == "updated":
                written[item.crop_id] = replace(before, crop=after, mended=False)
            enrolled.append(Enrolled(item.crop_id, status, after.identity, after.camera))
        for crop_id, jpeg in pictures.items():
            self._crops.pictures.put(crop_id, jpeg)
        self._crops.write(list(written.values()))
        named_before = (before.crop.identity for before in known.values() if before.crop.crop_id in written)
        self._crops.unlist_names(set(named_before) - {one.crop.identity for one in written.values()})
        return enrolled

    def _stored_form(self, item: NewCrop) -> NDArray[np.float16] | None:
        if not _is_uuid(item.crop_id):
            raise ValueError(f"a crop_id must be a UUID in lower case, not {item.crop_id!r}")
        return None if item.embedding is None else ranking.stored_form(item.embedding, self._dim)

    def known(self, crop_ids: Iterable[str]) -> set[str]:
        """Those already enrolled: `enrol` takes them without embedding. One with a damaged embedding is not."""
        return self._crops.sound(sorted(set(crop_ids)))

    def get(self, crop_id: str, *, strong: bool = False) -> Crop:
        """Raises UnknownCrop."""
        return crop_of(self._rows([crop_id], LABELS, strong)[crop_id])

    def image(self, crop_id: str, *, strong: bool = False) -> bytes | None:
        """The stored JPEG thumbnail, None if none was stored. Raises UnknownCrop."""
        self._rows([crop_id], ["seq"], strong)
        return self._crops.pictures.get(crop_id)

    def embeddings(self, crop_ids: Sequence[str], *, strong: bool = False) -> NDArray[np.float32]:
        """Stored embeddings [n, D], in order. Raises UnknownCrop; GalleryDamaged for a damaged one."""
        found = self._rows(crop_ids, ["crc32", VECTOR], strong)
        return np.stack([vector_of(found[crop_id]) for crop_id in crop_ids]).astype(np.float32)

    def _rows(self, crop_ids: Sequence[str], fields: Sequence[str], strong: bool) -> dict[str, dict[str, object]]:
        """Rows by id. Raises UnknownCrop."""
        for crop_id in crop_ids:
            if not _is_uuid(crop_id):
                raise UnknownCrop(crop_id)
        which = among(KEY, sorted(set(crop_ids)))
        rows = self._server.rows(self._collections.crops, which, [KEY, *fields], strong=strong)
        found = {row[KEY]: dict(row) for row in rows}
        for crop_id in crop_ids:
            if crop_id not in found:
                raise UnknownCrop(crop_id)
        return found

    def delete(self, crop_id: str) -> None:
        """Erases the crop, its embedding and its picture. Raises UnknownCrop."""
        self._crops.erase([crop_of(self._rows([crop_id], LABELS, strong=True)[crop_id])])

    def page(self, filters: Filters, limit: int, cursor: str | None, *, strong: bool = False) -> Page:
        """Up to `limit` >= 1 crops that pass the filters, in the order in which they were enrolled.

        Following `next_cursor` meets every crop that stays enrolled, and was visible at the beginning, exactly once.
        Raises InvalidCursor; ValueError for another limit.
        """
        return page_of(self._crops, filters, limit, cursor, strong=strong)

    def query(self, embeddings: NDArray[np.float32], options: QueryOptions) -> Answer:
        """Ranks the identities by their distance to one person, seen in one or several shots [M, D].

        Raises InvalidEmbedding.
        """
        return self._searcher.answer(ranking.combine(embeddings, self._dim), options)

    def query_all(self, probes: Sequence[Probe]) -> list[Answer | InvalidEmbedding | GalleryUnavailable]:
        """Answers many queries at once, each on its own: what fails, fails alone. Order is kept."""
        # They mostly wait for Milvus. FAISS would start a team of threads for what each of them measures.
        with ThreadPoolExecutor(MOST_AT_ONCE, "gallery-milvus-query", faiss.omp_set_num_threads, (1,)) as threads:
            return list(threads.map(self._outcome, probes))

    def _outcome(self, probe: Probe) -> Answer | InvalidEmbedding | GalleryUnavailable:
        try:
            return self.query(probe.embeddings, probe.options)
        except (InvalidEmbedding, GalleryUnavailable) as error:
            return error


def _new(item: NewCrop) -> Crop:
    marks = tuple(sorted({*item.not_identity} - {item.labels.identity or ""}))
    return Crop(
        item.crop_id, **vars(item.labels), enrolled_at=item.enrolled_at or datetime.now(UTC), not_identity=marks
    )


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
