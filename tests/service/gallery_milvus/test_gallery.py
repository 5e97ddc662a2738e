"""The gallery without Milvus: its server and its searcher are played, to say when what is asked of them fails."""

from __future__ import annotations

import threading
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from service.gallery.records import (
    Answer,
    GalleryDamaged,
    GalleryUnavailable,
    InvalidEmbedding,
    Labels,
    Probe,
    QueryOptions,
)
from service.gallery.store import Model
from service.gallery_milvus.collections import Collections
from service.gallery_milvus.crops import Crops
from service.gallery_milvus.gallery import MOST_AT_ONCE, MilvusGallery
from service.gallery_milvus.pictures import NoPictures
from service.gallery_milvus.rows import KEY, VECTOR
from service.gallery_milvus.searching import Searcher
from service.gallery_milvus.server import Server
from tests.service.gallery.cases import MODEL, crop_id, new_crop, units

DIM = 16


class PlayedServer:
    """Holds crops by their ids, so that one can be damaged; and no names."""

    def __init__(self) -> None:
        self.crops: dict[str, dict[str, Any]] = {}

    def count(self, *_: object, **__: object) -> int:
        return len(self.crops)

    def rows(self, collection: str, which: str, fields: list[str], **_: object) -> list[dict[str, Any]]:
        return [{field: row[field] for field in fields} for name, row in self.crops.items() if name in which]

    def upsert(self, collection: str, rows: list[dict[str, Any]]) -> None:
        if collection == "crops":
            self.crops.update({row[KEY]: dict(row) for row in rows})

    def close(self) -> None:
        """There is no connection."""


class PlayedSearcher:
    """Answers once `together` queries are searched at the same time; finds Milvus away for those of 99."""

    def __init__(self, together: int) -> None:
        self._all_there = threading.Barrier(together)

    def answer(self, query: NDArray[np.float32], options: QueryOptions) -> Answer:
        self._all_there.wait(30)
        if options.top_k == 99:
            raise GalleryUnavailable("away")
        return Answer(None, (), options.top_k, exact=True)


def opened(server: Any, searcher: Any = None) -> MilvusGallery:
    crops = Crops(cast(Server, server), Collections("crops", "names", "FLAT", b""), NoPictures())
    return MilvusGallery(crops, Model(MODEL, "model-a", DIM), cast(Searcher, searcher))


def test_queries_are_searched_at_once_and_fail_alone() -> None:
    shots = units(np.random.default_rng(1), MOST_AT_ONCE, DIM)
    probes = [Probe(shot[None], QueryOptions(top_k=n + 1)) for n, shot in enumerate(shots)]
    probes[3] = Probe(shots[3:4], QueryOptions(top_k=99))
    bad = Probe(np.zeros((1, DIM), np.float32), QueryOptions())  # is refused before it is searched
    with opened(PlayedServer(), PlayedSearcher(MOST_AT_ONCE)) as gallery:
        answers = gallery.query_all([bad, *probes])
    assert isinstance(answers[0], InvalidEmbedding)
    assert isinstance(answers[4], GalleryUnavailable)
    searched = [answer.searched for answer in answers[1:] if isinstance(answer, Answer)]
    assert searched == [n + 1 for n in range(MOST_AT_ONCE) if n != 3]


def test_a_damaged_embedding_is_reported_and_healed_when_it_is_enrolled_again() -> None:
    server, vectors = PlayedServer(), units(np.random.default_rng(1), 2, DIM)
    names, again = [crop_id(0), crop_id(1)], [new_crop(n, vector) for n, vector in enumerate(vectors)]
    with opened(server) as gallery:
        gallery.enrol([new_crop(n, vector, Labels(f"p{n}")) for n, vector in enumerate(vectors)])
        stored = dict(server.crops[names[1]])
        server.crops[names[1]][VECTOR] = [0.0] * DIM
        with pytest.raises(GalleryDamaged, match=f"{names[1]} is damaged; enrol its picture again"):
            gallery.embeddings(names)
        with pytest.raises(GalleryDamaged):
            gallery.enrol([new_crop(1, None)])
        assert gallery.known(names) == {names[0]}
        assert [one.status for one in gallery.enrol([*again, again[1]])] == ["duplicate", "updated", "duplicate"]
        assert server.crops[names[1]] == stored
        assert gallery.known([*names, crop_id(2)]) == {*names}
