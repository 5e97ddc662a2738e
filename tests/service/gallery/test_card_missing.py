"""Searches on a GPU: what is said where it, its library or its memory is missing."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from service.gallery import building, memory
from service.gallery.building import IndexKind, Searching
from service.gallery.card import why_no_card
from service.gallery.memory import card_bytes, free_on_card, require_card_memory
from service.gallery.records import GalleryUnavailable
from tests.service.gallery.card_doubles import GIB, opened
from tests.service.gallery.large import SHOTS, enrolled, people

pytestmark = pytest.mark.usefixtures("with_card")


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
