"""What `make bench-gpu` searches with, without a GPU: FAISS's flat index of the CPU stands for the card's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import pytest

from benchmarks import search
from benchmarks.aims import AIMS
from benchmarks.drawn import draw_queries
from benchmarks.gpu_searchers import ResightGpu
from benchmarks.results import Results
from benchmarks.searchers import SEARCHERS, TENTH, THOUSANDTH, passing, rounded
from service.gallery import building, memory
from service.gallery.card import CardRows

CROPS, DIM = 2_000, 32


def flat() -> CardRows:
    return CardRows(lambda: faiss.IndexFlatL2(DIM), selects=True)


def test_ours_finds_what_sorting_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "CHECK_SECONDS", 0.01)
    monkeypatch.setattr(building, "why_no_card", lambda graph: None)
    monkeypatch.setattr(building, "card_rows", lambda dim: flat())
    monkeypatch.setattr(memory, "free_on_card", lambda: None)
    ours = SEARCHERS["resight-gpu"]()
    ours.build(CROPS, DIM, tmp_path)
    queries = rounded(draw_queries(search.QUERIES, CROPS, DIM))
    assert search.recall(ours.search(queries, None), search.exact(CROPS, DIM)) > 0.999
    for share in (TENTH, THOUSANDTH):
        for numbers in ours.search(queries[:3], share):
            assert passing(np.array(numbers), share).all()
    ours.close()


def test_without_a_gpu_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "why_no_card", lambda graph: "FAISS sees no GPU")
    failing: list[Callable[[], None]] = [
        lambda: ResightGpu().build(CROPS, DIM, tmp_path),
        lambda: ResightGpu("cagra").build(CROPS, DIM, tmp_path),
    ]
    for build in failing:
        with pytest.raises(Exception, match="GPU"):
            build()


def test_the_aim_is_about_our_search() -> None:
    results = Results("search", {}, {}, "abc", complete=True)
    results.add("FAISS flat fp16 on the GPU", "64 queries at once", search.TIME, 0.1)
    (aim,) = [aim for aim in AIMS if "10,000,000" in aim.text]
    assert aim.row({"gpu-search": results})[3] == "not yet run"
    results.add(search.OURS_ON_GPU, "64 queries at once", search.TIME, 0.5)
    assert aim.row({"gpu-search": results})[1:] == ("32.0 ms", "≤ 40 ms", "reached")
