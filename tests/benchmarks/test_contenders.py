"""What is compared is alike: the same crops, the same filters, the same nearest; workers answer and say why not."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import BenchmarkError, decode, engine, enrolment, growth, search, service, start
from benchmarks.decoders import DECODERS
from benchmarks.drawn import CHUNK, draw_crops, draw_gallery, draw_queries
from benchmarks.engines import raw_engine
from benchmarks.fresh import config_of
from benchmarks.load import pictures
from benchmarks.results import Results
from benchmarks.searchers import (
    RARE,
    TENTH,
    THOUSANDTH,
    TOP,
    Faiss,
    Resight,
    Searcher,
    camera_of,
    fill,
    passing,
    rounded,
)
from benchmarks.worker import working
from service.gallery.folder import STAGE_NAME
from training.modelfile.metadata import architecture

CROPS, DIM = 2_000, 32
PEERS = Path(".venv-peers/bin/python")


def test_drawn_crops_are_alike_where_they_are_one_persons() -> None:
    gallery = np.concatenate([rows for _, rows in draw_gallery(CROPS + 5, 64)])
    assert gallery.shape == (CROPS + 5, 64)
    assert np.array_equal(gallery[CHUNK : 2 * CHUNK], draw_crops(range(CHUNK, 2 * CHUNK), 64))
    assert np.linalg.norm(gallery, axis=1) == pytest.approx(1, abs=1e-5)
    cosines = gallery @ gallery.T
    persons = np.arange(CROPS + 5) // 20
    same = (persons[:, None] == persons) & ~np.eye(CROPS + 5, dtype=bool)
    assert cosines[same].mean() == pytest.approx(0.7, abs=0.03)
    assert cosines[persons[:, None] != persons].mean() == pytest.approx(0, abs=0.03)
    queries = draw_queries(4, CROPS, 64)
    assert (persons[np.argmax(queries @ gallery.T, axis=1)] == [0, 25, 50, 75]).all()


def test_exact_search_is_what_sorting_finds() -> None:
    gallery = np.concatenate([rounded(rows) for _, rows in draw_gallery(CROPS, DIM)])
    queries = rounded(draw_queries(search.QUERIES, CROPS, DIM))
    sorted_: NDArray[np.int64] = np.argsort(-(queries @ gallery.T), axis=1)[:, :TOP]
    wanted = search.exact(CROPS, DIM)
    assert wanted == [set(row) for row in sorted_.tolist()]
    assert search.recall(sorted_.tolist(), wanted) == 1
    assert search.recall([[-1] * 10] * 16 + sorted_[16:].tolist(), wanted) == 0.5


@pytest.mark.parametrize("share", [None, TENTH, THOUSANDTH])
def test_our_gallery_and_faiss_find_the_same(share: float | None, tmp_path: Path) -> None:
    searchers: list[Searcher] = [Resight(), Faiss(tuned=True), Faiss(fp16=True)]
    queries = rounded(draw_queries(3, CROPS, DIM))
    fill(tmp_path, CROPS, DIM)
    for searcher in searchers:
        searcher.build(CROPS, DIM, tmp_path)
    ours, *theirs = [searcher.near(queries, share) for searcher in searchers]
    searchers[0].close()
    reachable = CROPS if share is None else int(passing(np.arange(CROPS), share).sum())
    for found in theirs:
        assert [set(row) - {-1} for row in found] == [set(row) for row in ours]
    assert {len(row) for row in ours} == {min(TOP, reachable)}


def test_a_filter_means_the_same_by_label_and_by_number() -> None:
    numbers = np.arange(5_000)
    assert np.array_equal(passing(numbers, TENTH), [camera_of(number) == "c1" for number in numbers.tolist()])
    assert np.array_equal(passing(numbers, THOUSANDTH), [camera_of(number) == RARE for number in numbers.tolist()])
    assert passing(numbers, TENTH).mean() == pytest.approx(0.1)


def test_a_worker_answers_and_says_why_not(tmp_path: Path) -> None:
    with working("benchmarks.searchers", "faiss") as worker:
        assert worker.ask(do="build", crops=100, dim=8, folder=str(tmp_path))["seconds"] > 0
        assert len(worker.ask(do="near", batch=3)) == 3
        assert worker.ask(do="search", batch=2, share=None, seconds=0)
        with pytest.raises(BenchmarkError, match="KeyError"):
            worker.ask(do="search", batch=2, share=None)
    with working("benchmarks.no_such_module") as worker, pytest.raises(BenchmarkError, match="No module named"):
        worker.ask(do="build")


@pytest.mark.parametrize(("crops", "there"), [(20_000, ""), (100_000, "e"), (299_999, "e"), (300_000, "ec")])
def test_a_setting_is_measured_where_it_is_for_something_and_says_why_elsewhere(
    crops: int, there: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object, **__: object) -> None:
        raise BenchmarkError("none here")

    monkeypatch.setattr(search, "fill", lambda *_: None)
    monkeypatch.setattr(search, "exact", lambda *_: [])
    monkeypatch.setattr(search, "working", none)
    assert search.main(["--crops", str(crops), "--json", str(tmp_path / "found.json")]) == 0
    tried = Results.read(tmp_path / "found.json").not_run
    exact = "none here" if "e" in there else "`auto` is the same up to 50,000 crops"
    compressed = "none here" if "c" in there else "for galleries from 300,000 crops on"
    graph = "its graph is built up to 20,000 crops; see make bench-large" if crops > 20_000 else "none here"
    assert tried[search.OURS] == "none here"
    assert tried[search.LABELS["resight-exact"]] == exact
    assert tried[search.OURS_COMPRESSED] == compressed
    assert tried[search.LABELS["resight-hnsw"]] == graph
    assert tried["Milvus"] == "a server of its own, which these benchmarks do not start"


def test_what_another_contender_left_is_not_taken(tmp_path: Path) -> None:
    fill(tmp_path, CROPS, DIM)
    left = tmp_path / "gallery" / STAGE_NAME
    left.write_bytes(b"another's")
    searcher = Resight("compressed")
    searcher.build(CROPS, DIM, tmp_path)
    assert left.read_bytes() != b"another's"
    queries = rounded(draw_queries(search.QUERIES, CROPS, DIM))
    assert search.recall(searcher.near(queries, None), search.exact(CROPS, DIM)) > 0.9
    searcher.close()


def test_ours_searches_on_one_thread_as_the_service_and_peers_on_their_own_choice(tmp_path: Path) -> None:
    fill(tmp_path, 100, DIM)
    faiss.omp_set_num_threads(3)
    Faiss().build(100, DIM, tmp_path)
    assert faiss.omp_get_max_threads() == 3
    searcher = Resight()
    searcher.build(100, DIM, tmp_path)
    searcher.close()
    assert faiss.omp_get_max_threads() == 1


def test_plain_decoders_give_the_same_pixels() -> None:
    for size in decode.SIZES:
        (picture,) = pictures(1, size)
        assert np.array_equal(DECODERS["resight"]()(picture), DECODERS["pillow"]()(picture))


def test_the_words_of_an_architecture_are_read_back() -> None:
    for words in (
        "1x1 convolution, last stride 2, self-attention (softmax, scaled scores, value path 1/8)",
        "3x3 convolution, last stride 1, self-attention (softmax, unscaled scores, value path full), bnneck",
    ):
        words = f"resnet50, stride in the {words}"
        said = architecture(config_of(words))
        assert all(part in said for part in words.split(", "))
    with pytest.raises(ValueError, match="no network is known"):
        config_of("average-pool")


def test_contenders_of_a_device() -> None:
    on_cpu = [one.label for one in engine.contenders("cpu", tuple(engine.LABELS))]
    assert "Resight, int8" in on_cpu
    assert "PyTorch, int8" not in on_cpu
    assert [one.label for one in engine.contenders("cuda", ["resight"])] == [
        "Resight, fp16, cuda",
        "Resight, fp16, tensorrt",
    ]


def test_cases_in_flight() -> None:
    assert len(service.cases([1, 8, 32], [1, 8, 32], 256)) == 8
    assert str(service.Case(1, 32, without_camera=True)) == service.WITHOUT_CAMERA
    assert str(service.Case(1, 1)) == service.ONE


def test_an_exponent_is_fitted() -> None:
    sizes = [10, 100, 1000]
    assert growth.exponent(sizes, [3 * size**0.4 for size in sizes]) == pytest.approx(0.4)


def test_the_raw_engine_runs(model_path: Path) -> None:
    with raw_engine(model_path, 1) as raw:
        assert all(seconds > 0 for seconds in raw.ask(batch=2, seconds=0))


QUICK = ("--repeats", "1", "--seconds", "0.05")


@pytest.mark.slow
def test_the_commands_run(model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "WARM_SECONDS", 0.05)
    peers = ["--only", "resight", *(["plain"] if PEERS.is_file() else [])]
    quick = ["--model", str(model_path), *QUICK, "--json", str(tmp_path / "found.json")]
    for module, more in (
        (service, [*peers, "--gallery", "100", "--crops", "1", "--clients", "32"]),
        (enrolment, ["--crops", "40"]),
        (start, ["--sizes", "60"]),
        (growth, ["--sizes", "50,100", "--dim", "16"]),
        (search, ["--only", "resight", "faiss", "--crops", "200", "--dim", "16"]),
        (engine, ["--only", "onnxruntime", "--batches", "1", "--device", "cpu"]),
        (decode, ["--only", "resight", "pillow"]),
    ):
        code = module.main([*quick, *more])
        if module is engine:  # there is no fresh network like the tiny file
            assert code == 2
            continue
        assert code == 0
        found = Results.read(tmp_path / "found.json")
        assert found.complete
        assert np.isfinite([figure.median for figure in found.figures]).all()
