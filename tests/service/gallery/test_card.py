"""Searches on a GPU, on a machine without one: FAISS's indexes of the CPU stand where those of the card would be.

What needs the card itself is in test_on_gpu.py.
"""

from __future__ import annotations

import ctypes
import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from service.gallery import building, cagra, card, graphbuilding, index, memory
from service.gallery.building import IndexKind, Searching
from service.gallery.cagra import Cagra
from service.gallery.card import CardRows, why_no_card
from service.gallery.erasures import Selection
from service.gallery.gallery import Gallery
from service.gallery.memory import card_bytes, free_on_card, require_card_memory
from service.gallery.records import Answer, Filters, GalleryUnavailable, NewCrop, Probe, QueryOptions
from service.gallery.stage import StageLost
from tests.service.gallery.cases import MODEL, units, until
from tests.service.gallery.large import DIM, SHOTS, agreement, enrolled, people

GIB = 2**30
FILTERS = (
    Filters(),
    Filters(exclude_cameras=frozenset({"c1"})),
    Filters(cameras=frozenset({"c3"})),
    Filters(identities=frozenset({"p3", "p7", "p30"})),
)


class Rows:
    """A block of a card, by FAISS's float16 index of the CPU.

    The card has room for `room` vectors, and for searches of blocks of `sight`.
    """

    room = sight = 10**9
    held = 0

    def __init__(self, selects: bool) -> None:
        self._index = faiss.IndexScalarQuantizer(DIM, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_L2)
        self._selects = selects

    @property
    def ntotal(self) -> int:
        return int(self._index.ntotal)

    def add(self, vectors: NDArray[np.float32]) -> None:
        if Rows.held + len(vectors) > Rows.room:
            raise RuntimeError("Error in faiss::gpu\n  StandardGpuResources: alloc fail")
        Rows.held += len(vectors)
        self._index.add(vectors)

    def search(self, queries: NDArray[np.float32], k: int, params: Any = None) -> Any:
        if self.ntotal > Rows.sight:
            raise RuntimeError("out of memory")
        assert 0 < k <= min(self.ntotal, card.MOST_CUVS if self._selects else card.MOST)
        assert params is None or self._selects
        squared, places = self._index.search(queries, k, params=params)
        assert (places >= 0).all()  # no more is asked for than passes: what cuVS fills up with is not said
        return squared, places


class Graph:
    """A CAGRA graph, by FAISS's HNSW of the CPU."""

    def __init__(self, vectors: NDArray[np.float16]) -> None:
        self._index = faiss.IndexHNSWFlat(DIM, 32)
        self._index.add(vectors.astype(np.float32))
        self.ntotal = len(vectors)
        self.asked = 0

    def search(self, queries: NDArray[np.float16], k: int, params: Any, numeric_type: int) -> Any:
        assert queries.dtype == np.float16
        assert numeric_type == faiss.Float16
        self.asked += len(queries)
        return self._index.search(queries.astype(np.float32), k, params=params)


def walk(k: int, passing: NDArray[np.bool_] | None) -> Any:
    return faiss.SearchParametersHNSW(efSearch=2 * k, sel=None if passing is None else card.selector(passing))


@pytest.fixture(autouse=True)
def _a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "CHECK_SECONDS", 0.01)
    monkeypatch.setattr(index, "COMPACT_MINIMUM", 100)
    monkeypatch.setattr(card, "BLOCK", 700)
    monkeypatch.setattr(building, "card_rows", lambda dim: rows(selects=True))
    monkeypatch.setattr(graphbuilding, "built_graph", Graph)
    monkeypatch.setattr(building, "EXACT_UP_TO", 1200)
    monkeypatch.setattr(cagra, "_walk", walk)
    monkeypatch.setattr(memory, "free_on_card", lambda: None)
    for name, value in (("room", 10**9), ("sight", 10**9), ("held", 0)):
        monkeypatch.setattr(Rows, name, value)


def rows(selects: bool) -> CardRows:
    return CardRows(lambda: Rows(selects), selects)


def opened(folder: Path, kind: IndexKind = "auto", on_card: bool = True) -> Gallery:
    return Gallery.open(folder, MODEL, "model-a", DIM, None, 0.3, Searching(kind, card=on_card))


def erase(gallery: Gallery, crops: Sequence[NewCrop]) -> None:
    gallery.erasures.erase(Selection(crop_ids=frozenset(crop.crop_id for crop in crops)))


def answers(gallery: Gallery, probes: NDArray[np.float32], exact: bool = False, top_k: int = 10) -> list[Answer]:
    """To all probes with all filters, asked at once."""
    asked = [
        Probe(probe[None], QueryOptions(top_k, 2, filters, exact=exact)) for probe in probes for filters in FILTERS
    ]
    found = []
    for answer in gallery.query_all(asked):
        assert isinstance(answer, Answer)
        found.append(answer)
    return found


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


@pytest.mark.parametrize("kind", ["auto", "exact", "cagra"])
def test_it_is_taken_where_faiss_has_it(monkeypatch: pytest.MonkeyPatch, kind: IndexKind) -> None:
    monkeypatch.setattr(building, "why_no_card", lambda graph: None)
    for wanted in (True, None):
        assert Searching.here(kind, 2, True, wanted) == Searching(kind, 2, card=True)
    assert not Searching.here(kind, 2, True, False).card
    assert not Searching.here(kind, 2, False, True).card  # for who only enrols
    for other in ("ivf", "hnsw", "compressed"):
        assert not Searching.here(other, 2, True, True).card


def test_what_is_missing_is_said_and_refused_where_only_a_card_does(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(building, "why_no_card", lambda graph: "FAISS sees no GPU: look")
    with pytest.raises(
        GalleryUnavailable, match=r"^RESIGHT_INDEX=cagra searches on a GPU, and FAISS sees no GPU: look\.$"
    ):
        Searching.here("cagra", 1, True, None)
    assert Searching.here("cagra", 1, False, None).kind == "cagra"  # nobody searches
    assert not Searching.here("auto", 1, True, None).card
    assert not caplog.records
    assert not Searching.here("exact", 1, True, True).card
    assert caplog.messages == ["searches run on the CPU: FAISS sees no GPU: look"]


def test_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("StandardGpuResources", "GpuIndexCagra"):
        monkeypatch.delattr(faiss, name, raising=False)
    assert "install the extra gpu" in str(why_no_card())
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0, raising=False)
    assert "FAISS sees no GPU: nvidia-smi" in str(why_no_card())
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    assert why_no_card() is None
    assert "install faiss-gpu-cuvs" in str(why_no_card(graph=True))
    monkeypatch.setattr(faiss, "GpuIndexCagra", object, raising=False)
    assert why_no_card(graph=True) is None


def test_the_memory_that_a_card_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert 41 < card_bytes(10**7, 2048, graph=False) / GIB < 43
    assert 98 < card_bytes(10**7, 2048, graph=True) / GIB < 100
    assert card_bytes(1000, 512, graph=False) < 2.1 * GIB  # a small gallery fits on a small card


def test_more_than_the_card_holds_is_refused_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(memory, "free_on_card", lambda: 24 * GIB)
    require_card_memory(10**6, 2048, graph=True)
    wanted = r"10,000,000 crops take 42\.\d GiB of the GPU's memory, 24\.0 GiB are free: set RESIGHT_INDEX=ivf, which"
    with pytest.raises(GalleryUnavailable, match=wanted):
        Searching("exact", card=True).fitted(10**7, 2048)
    with pytest.raises(
        GalleryUnavailable, match=r"the graph over them take 9.* set RESIGHT_INDEX=exact, which takes 42"
    ):
        Searching("cagra", card=True).fitted(10**7, 2048)
    assert Searching("auto", card=True).fitted(10**6, 2048).card
    assert not caplog.records
    assert not Searching("auto", card=True).fitted(10**7, 2048).card
    assert caplog.messages[0].startswith("searches run on the CPU: The embeddings of 10,000,000 crops")
    assert not Searching("exact").fitted(10**7, 2048).card
    monkeypatch.setattr(memory, "free_on_card", lambda: None)
    assert Searching("exact", card=True).fitted(10**9, 2048).card


def test_a_gallery_too_large_for_the_card_does_not_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path, on_card=False) as gallery:
        gallery.enrol(enrolled(people(np.random.default_rng(11), 10, SHOTS)))
    monkeypatch.setattr(memory, "free_on_card", lambda: GIB)
    with pytest.raises(GalleryUnavailable, match="60 crops take"):
        opened(tmp_path, "exact")
    with opened(tmp_path, "auto") as gallery:
        assert not gallery._builder._searching.card


class Runtime:
    """A CUDA runtime that tells `free` bytes, or an error."""

    def __init__(self, code: int) -> None:
        self._code = code

    def cudaMemGetInfo(self, free: Any, total: Any) -> int:
        ctypes.cast(free, ctypes.POINTER(ctypes.c_size_t))[0] = 5 * GIB
        return self._code


@pytest.fixture
def loads() -> Callable[[dict[str, Runtime]], Callable[[str], Any]]:
    def loader(libraries: dict[str, Runtime]) -> Callable[[str], Any]:
        def load(name: str) -> Any:
            if name not in libraries:
                raise OSError(name)
            return libraries[name]

        return load

    return loader


def test_free_memory_of_the_card(
    monkeypatch: pytest.MonkeyPatch, loads: Callable[[dict[str, Runtime]], Callable[[str], Any]]
) -> None:
    monkeypatch.undo()
    assert free_on_card(loads({"libcudart.so.13": Runtime(0)})) == 5 * GIB
    assert free_on_card(loads({"libcudart.so.12": Runtime(0)})) == 5 * GIB
    assert free_on_card(loads({"libcudart.so.13": Runtime(35)})) is None
    assert free_on_card(loads({})) is None


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


@pytest.mark.parametrize(("k", "kept"), [(1, 64), (64, 64), (65, 96), (512, 512), (1000, 1024)])
def test_a_walk_keeps_as_many_as_it_is_to_find(monkeypatch: pytest.MonkeyPatch, k: int, kept: int) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(faiss, "SearchParametersCagra", lambda **said: said, raising=False)
    assert cagra._walk(k, None) == {"itopk_size": kept, "sel": None}
    assert cagra._walk(k, np.ones(9, np.bool_))["sel"].is_member(8)
