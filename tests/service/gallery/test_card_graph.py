"""Searches on a GPU, on a machine without one: the graph beside the rows."""

from __future__ import annotations

import threading
from pathlib import Path

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from service.gallery import cagra, graphbuilding
from service.gallery.cagra import Cagra
from service.gallery.records import Filters, QueryOptions
from service.gallery.stage import StageLost
from tests.service.gallery.card_doubles import FILTERS, Graph, erase, opened
from tests.service.gallery.cases import until
from tests.service.gallery.large import SHOTS, agreement, enrolled, people

pytestmark = pytest.mark.usefixtures("with_card")


def test_a_graph_is_built_beside_the_rows_and_finds_nearly_all(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    crops = enrolled(people(rng, 400, SHOTS))
    probes = people(rng, 20, 1)
    with opened(tmp_path, "cagra") as gallery:
        gallery.enrol(crops[:1200])
        until(lambda: gallery.stage == "gpu")
        assert gallery.query(probes[:1], QueryOptions()).exact
        gallery.enrol(crops[1200:1600])
        until(lambda: gallery.stage == "cagra")
        gallery.enrol(crops[1600:2000])  # these are among the rows only
        first = gallery._index.stage
        assert isinstance(first, Cagra)
        assert (len(first), first._built) == (2000, 1600)
        for filters in FILTERS[:3]:
            assert agreement(gallery, probes, filters) > 0.9
        for crop in crops[1500:1700:10]:
            assert crop.embedding is not None
            assert gallery.query(crop.embedding[None], QueryOptions()).matches[0].crop.crop_id == crop.crop_id
        assert first._graph.asked >= 80
        everybody = gallery.query(probes[:1], QueryOptions(top_k=1000))
        assert len(everybody.matches) == len({crop.labels.identity for crop in crops[:2000]})
        erase(gallery, crops[:60])
        assert agreement(gallery, probes, Filters()) > 0.9
        gallery.enrol(crops[2000:])
        gallery.enrol(enrolled(people(rng, 50, SHOTS), len(crops)))
        until(lambda: gallery._index.stage is not first and gallery.stage == "cagra")  # it had outgrown the graph
        second = gallery._index.stage
        assert second is not None
        assert second.exact is first.exact


def test_where_the_graph_has_no_room_the_card_compares_every_crop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(vectors: NDArray[np.float16]) -> None:
        raise StageLost("out of memory")

    monkeypatch.setattr(graphbuilding, "built_graph", full)
    with opened(tmp_path, "cagra") as gallery:
        gallery.enrol(enrolled(people(np.random.default_rng(8), 250, SHOTS)))
        until(lambda: "takes no graph; it compares every crop instead (out of memory)" in caplog.text)
        assert gallery.stage == "gpu"
    monkeypatch.setattr(graphbuilding, "free_memory", lambda: 10)
    caplog.clear()
    with opened(tmp_path, "cagra") as gallery:
        until(lambda: "takes no graph; it compares every crop instead (while it is built" in caplog.text)


def test_closing_does_not_wait_for_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(vectors: NDArray[np.float16]) -> Graph:
        begun.set()
        assert go_on.wait(30)
        return Graph(vectors[:10])

    monkeypatch.setattr(graphbuilding, "built_graph", slow)
    with opened(tmp_path, "cagra") as gallery:
        gallery.enrol(enrolled(people(np.random.default_rng(9), 250, SHOTS)))
        assert begun.wait(30)
    assert gallery.stage == "gpu"
    go_on.set()


def test_erasing_many_while_the_graph_is_built_leaves_it_unused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def waiting(vectors: NDArray[np.float16]) -> Graph:
        begun.set()
        assert go_on.wait(30)
        return Graph(vectors)

    monkeypatch.setattr(graphbuilding, "built_graph", waiting)
    rng = np.random.default_rng(10)
    crops = enrolled(people(rng, 400, SHOTS))
    with opened(tmp_path, "cagra") as gallery:
        gallery.enrol(crops)
        assert begun.wait(30)
        erase(gallery, crops[:900])
        go_on.set()
        until(lambda: gallery.stage == "cagra")
        stage = gallery._index.stage
        assert isinstance(stage, Cagra)
        assert stage._built == len(stage) < len(crops)
        assert agreement(gallery, people(rng, 10, 1), Filters()) > 0.9


@pytest.mark.parametrize(("k", "kept"), [(1, 64), (64, 64), (65, 96), (512, 512), (1000, 1024)])
def test_a_walk_keeps_as_many_as_it_is_to_find(monkeypatch: pytest.MonkeyPatch, k: int, kept: int) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(faiss, "SearchParametersCagra", lambda **said: said, raising=False)
    assert cagra._walk(k, None) == {"itopk_size": kept, "sel": None}
    assert cagra._walk(k, np.ones(9, np.bool_))["sel"].is_member(8)
