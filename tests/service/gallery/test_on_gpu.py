"""Searches on a real GPU: `make test-gpu`. Skipped, saying so, where there is none."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from service.gallery import building, card, index
from service.gallery.building import IndexKind, Searching
from service.gallery.cagra import Cagra, built_graph
from service.gallery.card import CUT_OFF, card_rows, has_cuvs, why_no_card
from service.gallery.erasures import Selection
from service.gallery.finding import products_error
from service.gallery.gallery import Gallery
from service.gallery.memory import FAISS_WORKS_WITH, free_on_card
from service.gallery.records import Filters, Probe, QueryOptions
from tests.service.gallery.cases import MODEL, units, until
from tests.service.gallery.large import DIM, SHOTS, agreement, enrolled, people

MISSING, NO_GRAPH = why_no_card(), why_no_card(graph=True)
FILTERS = (
    Filters(),
    Filters(exclude_cameras=frozenset({"c1"})),
    Filters(cameras=frozenset({"c3"})),
    Filters(identities=frozenset({"p3", "p7", "p30"})),
)
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(MISSING is not None, reason=str(MISSING))]
with_graphs = pytest.mark.skipif(NO_GRAPH is not None, reason=str(NO_GRAPH))


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "CHECK_SECONDS", 0.01)
    monkeypatch.setattr(index, "COMPACT_MINIMUM", 100)


def opened(folder: Path, kind: IndexKind, on_card: bool) -> Gallery:
    return Gallery.open(folder, MODEL, "model-a", DIM, None, 0.3, Searching(kind, card=on_card))


def truth(queries: NDArray[np.float32], vectors: NDArray[np.float16]) -> NDArray[np.float64]:
    """Squared distances [m, n]."""
    wide, asked = vectors.astype(np.float64), queries.astype(np.float64)
    squared: NDArray[np.float64] = (asked**2).sum(1)[:, None] + (wide**2).sum(1) - 2 * asked @ wide.T
    return squared


@pytest.mark.parametrize("dim", [512, 2048])
def test_the_nearest_are_found_within_the_error_that_ranking_expects(monkeypatch: pytest.MonkeyPatch, dim: int) -> None:
    monkeypatch.setattr(card, "BLOCK", 4000)
    rng = np.random.default_rng(1)
    vectors = units(rng, 10_000, dim).astype(np.float16)
    queries = units(rng, 33, dim).astype(np.float16).astype(np.float32)
    queries[0] = vectors[17]
    rows = card_rows(dim)
    for part in np.array_split(vectors, (1, 3000, 9999)):
        rows.add(part, 1)
    exactly, error = truth(queries, vectors), CUT_OFF * products_error(dim)
    for mask in (None, rng.random(len(vectors)) < 0.3):
        passing = exactly if mask is None else np.where(mask, exactly, np.inf)
        for k in (1, 600):
            for (positions, squared), true in zip(rows.search(queries, k, mask), passing, strict=True):
                if mask is None or has_cuvs():
                    assert len(positions) == k
                assert len(set(positions.tolist())) == len(positions)
                assert np.abs(squared - true[positions]).max(initial=0) <= error
                farthest = np.sort(true)[: len(positions)].max(initial=0)
                assert true[positions].max(initial=0) <= farthest + 2 * error


def test_answers_are_those_of_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card, "BLOCK", 700)
    monkeypatch.setattr(card, "FETCHED", 20)
    rng = np.random.default_rng(2)
    crops = enrolled(people(rng, 1000, SHOTS))
    probes = people(rng, 20, 1)
    asked = [
        Probe(probe[None], QueryOptions(top_k, 2, filters))
        for probe in probes
        for filters in FILTERS
        for top_k in (1, 10, 1000)
    ]
    with opened(tmp_path / "card", "auto", True) as gallery, opened(tmp_path / "cpu", "exact", False) as other:
        for first, last in ((0, 4000), (4000, 6000)):
            for each in (gallery, other):
                each.enrol(crops[first:last])
            until(lambda: gallery.stage == "gpu")
            assert gallery.query_all(asked) == other.query_all(asked)
        for first, last in ((0, 300), (300, 2500)):  # marked as gone, and then so many that the others move together
            for each in (gallery, other):
                each.erasures.erase(Selection(crop_ids=frozenset(crop.crop_id for crop in crops[first:last])))
            until(lambda: gallery.stage == "gpu")
            assert gallery.query_all(asked) == other.query_all(asked)


@with_graphs
def test_a_graph_finds_nearly_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "EXACT_UP_TO", 5_000)
    rng = np.random.default_rng(3)
    crops = enrolled(people(rng, 1300, SHOTS))
    probes = people(rng, 40, 1)
    with opened(tmp_path, "cagra", True) as gallery:
        gallery.enrol(crops[:6500])
        until(lambda: gallery.stage == "cagra")
        gallery.enrol(crops[6500:])
        for filters in FILTERS[:3]:
            assert agreement(gallery, probes, filters) > 0.95
        (match, *_) = gallery.query(people(rng, 1, 1), QueryOptions(top_k=1000)).matches
        assert match.rank == 1
        for crop in crops[6400:6600:20]:
            assert crop.embedding is not None
            assert gallery.query(crop.embedding[None], QueryOptions()).matches[0].crop.crop_id == crop.crop_id
        gallery.erasures.erase(Selection(crop_ids=frozenset(crop.crop_id for crop in crops[:600])))
        assert gallery.stage == "cagra"
        assert agreement(gallery, probes, Filters()) > 0.95


@with_graphs
def test_exact_searches_go_on_while_a_graph_is_built_and_searched() -> None:
    """Each has resources of its own; those of one would serve one thread at a time."""
    rng = np.random.default_rng(4)
    vectors = units(rng, 30_000, 256).astype(np.float16)
    queries = units(rng, 8, 256)
    rows = card_rows(256)
    rows.add(vectors, 1)
    expected = [positions.tolist() for positions, _ in rows.search(queries, 50)]
    with ThreadPoolExecutor(3) as threads:
        graph = threads.submit(built_graph, vectors)
        while not graph.done():
            again = list(threads.map(lambda _: rows.search(queries, 50), range(4)))
            assert all([positions.tolist() for positions, _ in one] == expected for one in again)
        stage = Cagra(rows, graph.result())
        walked = list(threads.map(lambda _: stage.search(queries, 50), range(8)))
    for one in walked:
        shares = [len(set(near.tolist()) & set(wanted)) / 50 for (near, _), wanted in zip(one, expected, strict=True)]
        assert np.mean(shares) > 0.9


def test_the_vectors_take_the_memory_that_is_asked_for() -> None:
    before = free_on_card()
    assert before is not None
    rows = card_rows(512)
    rows.add(units(np.random.default_rng(5), 200_000, 512).astype(np.float16), 1)
    rows.search(units(np.random.default_rng(6), 64, 512), 512)
    after = free_on_card()
    assert after is not None
    assert 200_000 * 2 * 512 <= before - after <= 2 * 200_000 * 2 * 512 + FAISS_WORKS_WITH
