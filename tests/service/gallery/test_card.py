"""Searches on a GPU, on a machine without one: every vector compared there."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from service.gallery import building, cagra, card
from service.gallery.building import Searching
from service.gallery.card import CardRows
from service.gallery.records import Filters, QueryOptions
from service.gallery.stage import StageLost
from tests.service.gallery.card_doubles import Rows, answers, erase, opened, rows
from tests.service.gallery.cases import units, until
from tests.service.gallery.large import DIM, SHOTS, enrolled, people

pytestmark = pytest.mark.usefixtures("with_card")


@pytest.mark.parametrize("selects", [True, False])
@pytest.mark.parametrize("k", [1, 40, 900])
def test_the_nearest_come_from_all_blocks(selects: bool, k: int) -> None:
    rng = np.random.default_rng(1)
    vectors, queries = units(rng, 1500, DIM).astype(np.float16), units(rng, 5, DIM)
    onto = rows(selects)
    for part in np.array_split(vectors, (3, 699, 1402)):
        onto.add(part, 1)
    assert len(onto) == 1500
    exactly = ((queries[:, None].astype(np.float64) - vectors[None].astype(np.float64)) ** 2).sum(-1)
    for mask in (None, rng.random(1500) < 0.5, np.zeros(1500, np.bool_)):
        passing = exactly if mask is None else np.where(mask, exactly, np.inf)
        for near, true in zip(onto.search(queries, k, mask), passing, strict=True):
            positions, squared = near
            if selects or mask is None:
                assert len(positions) == min(k, int(np.count_nonzero(np.isfinite(true))))
            np.testing.assert_array_equal(positions, np.argsort(true)[: len(positions)])
            np.testing.assert_allclose(squared, true[positions], atol=1e-5)


def test_what_fills_up_is_dropped() -> None:
    """FAISS fills up with -1, or with anything, at the largest distance or at an infinite one."""
    places = np.array([[3, 1, -1, 9], [0, 2, 7, 2**32 - 1]])
    squared = np.array([[0.2, 0.1, 0.0, np.inf], [0.3, np.nan, 3.4e38, np.inf]], np.float32)
    kept = card.counted(places, squared, np.array([True, True, False, True]))
    ((near, far), (other, farther)) = card.merged(2, [(places, kept)], 4)
    assert (near.tolist(), other.tolist()) == ([1, 3], [0])
    np.testing.assert_allclose([*far, *farther], [0.1, 0.2, 0.3], rtol=1e-6)
    with pytest.raises(RuntimeError, match="does not heed filters"):
        card.counted(places, squared, np.array([True, False, True, True]))


@pytest.mark.parametrize("selects", [True, False])
def test_answers_are_those_of_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, selects: bool) -> None:
    """With filters, with what is added and erased meanwhile, and when more is wanted than a card finds."""
    monkeypatch.setattr(building, "card_rows", lambda dim: rows(selects))
    monkeypatch.setattr(card, "FETCHED", 20)  # as for a large gallery: it never suffices
    rng = np.random.default_rng(2)
    crops = enrolled(people(rng, 400, SHOTS))
    probes = people(rng, 6, 1)
    with opened(tmp_path / "card") as gallery, opened(tmp_path / "cpu", "exact", on_card=False) as other:

        def same() -> None:
            assert answers(gallery, probes) == answers(other, probes)
            assert answers(gallery, probes[:2], top_k=1000) == answers(other, probes[:2], top_k=1000)

        for each in (gallery, other):
            each.enrol(crops[:1500])
        until(lambda: gallery.stage == "gpu")
        same()
        for each in (gallery, other):
            each.enrol(crops[1500:])
        stage = gallery._index.stage
        assert stage is not None
        assert len(stage) == len(crops)
        for each in (gallery, other):
            erase(each, crops[:300])
        assert gallery._index.stage is stage
        same()
        for each in (gallery, other):
            erase(each, crops[300:700])
        until(lambda: gallery.stage == "gpu" and gallery._index.stage is not stage)  # moved together: put on it anew
        same()
        assert other.stage is None


def test_queries_that_filter_little_are_searched_for_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, bool]] = []
    search = CardRows.search

    def counting(self: CardRows, queries: Any, k: int, mask: Any = None) -> Any:
        asked.append((len(queries), mask is not None))
        return search(self, queries, k, mask)

    rng = np.random.default_rng(3)
    with opened(tmp_path) as gallery:
        gallery.enrol(enrolled(people(rng, 250, SHOTS)))
        until(lambda: gallery.stage == "gpu")
        monkeypatch.setattr(CardRows, "search", counting)
        answers(gallery, people(rng, 50, 1))
    assert asked[0] == (100, False)  # of 200: those with one camera of five, or three people, are asked by themselves
    assert set(asked[1:]) == {(1, True)}


def test_a_small_gallery_stays_on_the_cpu(tmp_path: Path) -> None:
    for kind in ("auto", "exact", "cagra"):
        searching = Searching(kind, card=True)
        assert searching.stage_for(999) is None
        assert searching.stage_for(1000) == "gpu"
    assert Searching("cagra", card=True).stage_for(1201) == "cagra"
    assert Searching("exact", card=True).stage_for(10**7) == "gpu"
    assert Searching("auto", staged=False, card=True).stage_for(10**7) is None
    assert Searching("cagra").stage_for(1201) == "ivf"


def test_a_gallery_that_shrinks_keeps_its_stage_longer() -> None:
    graph, exact = Searching("cagra", card=True), Searching("exact", card=True)
    assert graph.stage_for(961, "cagra") == "cagra"
    assert graph.stage_for(1100, "gpu") == "gpu"  # it is too small for a graph that is not there yet
    assert graph.stage_for(1201, "gpu") == "cagra"
    assert graph.stage_for(960, "cagra") is None
    assert exact.stage_for(800, "gpu") == "gpu"
    assert exact.stage_for(799, "gpu") is None


def test_nothing_of_the_card_is_kept_on_the_disk(tmp_path: Path) -> None:
    with opened(tmp_path, "cagra") as gallery:
        gallery.enrol(enrolled(people(np.random.default_rng(12), 250, SHOTS)))
        until(lambda: gallery.stage == "cagra")
    assert not list(tmp_path.glob("index.stage*"))


def test_what_the_cpu_left_on_the_disk_waits_there_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "service.gallery")
    with opened(tmp_path, "auto", on_card=False) as gallery:
        gallery.enrol(enrolled(people(np.random.default_rng(13), 250, SHOTS)))
        until(lambda: gallery.stage == "ivf")
    with opened(tmp_path, "auto") as gallery:
        until(lambda: gallery.stage == "gpu")
    monkeypatch.setattr(Rows, "room", 0)
    with opened(tmp_path, "auto") as gallery:
        until(lambda: gallery.stage == "ivf")
        until(lambda: building.LOADED in caplog.messages)


def test_what_the_card_no_longer_takes_is_searched_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(4)
    crops = enrolled(people(rng, 300, SHOTS))
    with opened(tmp_path, "exact") as gallery:
        gallery.enrol(crops[:1100])
        until(lambda: gallery.stage == "gpu")
        monkeypatch.setattr(Rows, "room", 1150)
        gallery.enrol(crops[1100:])
        until(lambda: "searches run on the CPU (Error in faiss::gpu StandardGpuResources: alloc fail)" in caplog.text)
        assert gallery.stage is None
        assert gallery.alive
        for crop in crops[1095:1105]:
            assert crop.embedding is not None
            (match, *_) = gallery.query(crop.embedding[None], QueryOptions()).matches
            assert match.crop.crop_id == crop.crop_id


def test_auto_takes_the_cpus_first_stage_when_the_card_does_not_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Rows, "room", 500)
    with opened(tmp_path) as gallery:
        gallery.enrol(enrolled(people(np.random.default_rng(5), 300, SHOTS)))
        until(lambda: gallery.stage == "ivf")


def test_a_search_that_fails_on_the_card_is_done_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(6)
    probes = people(rng, 3, 1)
    with opened(tmp_path) as gallery:
        gallery.enrol(enrolled(people(rng, 250, SHOTS)))
        expected = answers(gallery, probes)
        until(lambda: gallery.stage == "gpu")
        monkeypatch.setattr(Rows, "sight", 0)
        with caplog.at_level(logging.ERROR):
            assert answers(gallery, probes) == expected
            narrow = QueryOptions(filters=Filters(cameras=frozenset({"c3"})))
            assert gallery.query(probes[:1], narrow).exact
    assert "answered without it (out of memory)" in caplog.text


class Config:
    """Takes what it is told."""


class Made:
    """An index of the card that remembers how it was made."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def train(self, vectors: NDArray[np.float16], *, numeric_type: int) -> None:
        if not len(vectors):
            raise RuntimeError("out of memory")
        assert numeric_type == faiss.Float16


def test_indexes_of_the_card_are_float16_and_heed_filters_with_cuvs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GpuIndexFlatConfig", "GpuIndexCagraConfig"):
        monkeypatch.setattr(faiss, name, Config, raising=False)
    for name in ("StandardGpuResources", "GpuIndexFlatL2"):
        monkeypatch.setattr(faiss, name, Made, raising=False)
    monkeypatch.delattr(faiss, "GpuIndexCagra", raising=False)
    for cuvs in (False, True):
        if cuvs:
            monkeypatch.setattr(faiss, "GpuIndexCagra", Made, raising=False)
        onto = card.card_rows(DIM)
        _, dim, settings = onto._new_block().arguments
        assert (dim, settings.useFloat16, settings.use_cuvs) == (DIM, True, cuvs)
        assert onto.most == (16384 if cuvs else 2048)
    graph = cagra.built_graph(np.zeros((1, DIM), np.float16))
    _, dim, metric, settings = graph.arguments
    assert (dim, metric, settings.graph_degree) == (DIM, faiss.METRIC_L2, 64)
    with pytest.raises(StageLost, match="out of memory"):
        cagra.built_graph(np.zeros((0, DIM), np.float16))
