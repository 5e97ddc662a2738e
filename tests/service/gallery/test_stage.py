"""The first stage of large galleries: what it finds, when it is built, and what makes it give way to another."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from service.gallery import building, index, memory, rowfile, stage
from service.gallery.building import Searching, StageBuilder
from service.gallery.gallery import Gallery
from service.gallery.records import Filters, GalleryFull, GalleryUnavailable, QueryOptions
from service.gallery.stage import FirstStage, Kind, StageKind, cells
from tests.service.gallery.cases import MODEL, units, until
from tests.service.gallery.large import DIM, PEOPLE, SHOTS, agreement, enrolled, opened, people, staged


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "CHECK_SECONDS", 0.01)
    monkeypatch.setattr(index, "COMPACT_MINIMUM", 100)


@pytest.mark.parametrize("kind", ["ivf", "hnsw", "compressed"])
def test_likely_crops_are_mostly_the_nearest_even_of_strangers(tmp_path: Path, kind: building.IndexKind) -> None:
    rng = np.random.default_rng(1)
    crops = enrolled(people(rng, PEOPLE, SHOTS))
    with opened(tmp_path, kind) as gallery:
        gallery.enrol(crops[:1500])
        staged(gallery)
        gallery.enrol(crops[1500:])  # they join it
        assert gallery._index.staged
        probes = people(rng, 20, 1)
        assert agreement(gallery, probes, Filters()) > 0.9
        assert agreement(gallery, probes, Filters(exclude_cameras=frozenset({"c1"}))) > 0.9
        assert agreement(gallery, probes, Filters(cameras=frozenset({"c3"}))) > 0.9
        answer = gallery.query(probes[:1], QueryOptions(filters=Filters(identities=frozenset({"p7"}))))
        assert answer.exact  # so narrow that every crop was measured
        for crop in crops[:60]:
            gallery.delete(crop.crop_id)
        assert gallery._index.staged
        assert agreement(gallery, probes, Filters()) > 0.9
        everybody = gallery.query(probes[:1], QueryOptions(top_k=1000))
        assert {match.identity for match in everybody.matches} == {f"p{n}" for n in range(10, PEOPLE)}


def test_a_gallery_that_is_small_or_exact_has_none(tmp_path: Path) -> None:
    assert Searching("auto").stage_for(50_000) is None
    assert Searching("auto").stage_for(50_001) == "ivf"
    assert Searching("hnsw").stage_for(50_001) == "hnsw"
    assert Searching("exact").stage_for(10**7) is None
    assert Searching("ivf").stage_for(999) is None
    assert Searching("ivf", staged=False).stage_for(10**7) is None
    assert Searching("auto").stage_for(40_001, "ivf") == "ivf"  # it may be near the size for a long time
    assert Searching("auto").stage_for(40_000, "ivf") is None
    assert Searching("ivf").stage_for(799, "ivf") is None
    rng = np.random.default_rng(2)
    with opened(tmp_path, "exact") as gallery:
        gallery.enrol(enrolled(people(rng, 200, SHOTS)))
        assert gallery.query(units(rng, 1, DIM), QueryOptions()).exact


def test_erasing_many_builds_another_and_erasing_most_leaves_none(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    crops = enrolled(people(rng, PEOPLE, SHOTS))
    with opened(tmp_path) as gallery:
        gallery.enrol(crops)
        staged(gallery)
        before = gallery._index._stage
        for crop in crops[:500]:
            gallery.delete(crop.crop_id)
        until(lambda: gallery._index._stage not in (None, before) and len(gallery._index._stage) < len(crops))
        probe = crops[900].embedding
        assert probe is not None
        assert gallery.query(probe[None], QueryOptions()).matches[0].crop.crop_id == crops[900].crop_id
        for crop in (*crops[500:900], *crops[1000:1110]):
            gallery.delete(crop.crop_id)
        until(lambda: not gallery._index.staged)
        assert gallery.query(probe[None], QueryOptions()).exact


def test_a_gallery_that_has_outgrown_its_stage_gets_another(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    vectors = people(rng, 900, SHOTS)
    with opened(tmp_path) as gallery:
        gallery.enrol(enrolled(vectors[:1200]))
        staged(gallery)
        before = gallery._index._stage
        gallery.enrol(enrolled(vectors[1200:], 1200))
        until(lambda: gallery._index._stage is not before)
        assert gallery._index._stage is not None
        assert len(gallery._index._stage) == len(vectors)


def test_what_is_rearranged_while_it_is_built_is_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    with opened(tmp_path, "exact") as gallery:
        crops = enrolled(people(rng, 250, SHOTS))
        gallery.enrol(crops)
        builder = StageBuilder(gallery._index, Searching("exact"), gallery._builder._file)
        builder.close()
        builder._closed = False
        train = FirstStage.trained

        def slow(kind: Kind, sample: NDArray[np.float32], count: int, wanted: Callable[[], bool]) -> FirstStage | None:
            for crop in crops[:500]:
                gallery.delete(crop.crop_id)
            return train(kind, sample, count, wanted)

        monkeypatch.setattr(stage.FirstStage, "trained", slow)
        assert not builder.build("ivf")
        assert not gallery._index.staged
        monkeypatch.setattr(stage.FirstStage, "trained", train)
        assert builder.build("ivf")
        assert gallery._index.staged


def test_closing_does_not_wait_for_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = threading.Event()

    def k_means(*arguments: Any, **named: Any) -> faiss.Kmeans:
        training.set()
        return faiss_k_means(*arguments, **named)

    faiss_k_means = faiss.Kmeans
    monkeypatch.setattr(faiss, "Kmeans", k_means)
    monkeypatch.setattr(stage, "ROUNDS", 10**9)
    with opened(tmp_path) as gallery:
        gallery.enrol(enrolled(people(np.random.default_rng(9), PEOPLE, SHOTS)))
        assert training.wait(30)
    assert gallery._index._stage is None


@pytest.mark.parametrize(("count", "expected"), [(0, 16), (1000, 32), (100_000, 256), (1_000_000, 1024), (10**9, 4096)])
def test_cells(count: int, expected: int) -> None:
    assert cells(count) == expected


def test_more_than_memory_holds_is_refused_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    with opened(tmp_path / "data") as gallery:
        gallery.enrol(enrolled(people(rng, 300, SHOTS)))
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "LIMIT", limit)
    limit.write_text("50000\n")
    for name in ("index.snapshot", None):
        with pytest.raises(GalleryUnavailable, match=r"1,800 crops take 0.* set RESIGHT_INDEX=compressed"):
            opened(tmp_path / "data")
        if name is not None:
            (tmp_path / "data" / name).unlink()
    with opened(tmp_path / "data", "compressed") as gallery:
        assert gallery.crop_count == 1800
    for free in ("max\n", "10000000000\n"):
        limit.write_text(free)
        opened(tmp_path / "data").close()


def test_a_disk_without_room_for_the_vectors_is_told_and_costs_no_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as gallery:
        gallery.enrol(enrolled(people(np.random.default_rng(7), 100, SHOTS)))
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", no_room_behind(0))
        with pytest.raises(GalleryUnavailable, match=r"600 crops take 0.0 GiB beside the gallery.*no room"):
            opened(tmp_path, "compressed")
    assert (tmp_path / "index.snapshot").exists()


def test_a_file_of_vectors_grows_into_the_last_room_and_gives_back_what_does_not_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = units(np.random.default_rng(8), 300, DIM).astype(np.float16)
    rows = rowfile.RowFile(DIM, tmp_path)
    rows.reserve(200)
    rows.append(vectors[:200])
    monkeypatch.setattr(os, "posix_fallocate", no_room_behind(250 * 2 * DIM))
    rows.append(vectors[200:250])
    with pytest.raises(OSError, match="No space left"):
        rows.append(vectors[250:])
    assert os.fstat(rows._descriptor).st_size == 250 * 2 * DIM
    np.testing.assert_array_equal(rows.take(np.arange(250)), vectors[:250])


def test_a_full_disk_refuses_vectors_before_they_are_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crops = enrolled(people(np.random.default_rng(9), 50, SHOTS))
    with opened(tmp_path, "compressed") as gallery:
        with monkeypatch.context() as patch:
            patch.setattr(os, "posix_fallocate", no_room_behind(200 * 2 * DIM))
            gallery.enrol(crops[:150])
            with pytest.raises(GalleryFull, match="the disk is full; free space, then send it again"):
                gallery.enrol(crops[150:250])
            assert gallery.trouble is None
            assert gallery.known([crop.crop_id for crop in crops[150:250]]) == set()
            assert gallery.crop_count == 150
            gallery.enrol(crops[150:200])
            probe = crops[199].embedding
            assert probe is not None
            assert gallery.query(probe[np.newaxis], QueryOptions()).searched == 200
            gallery.delete(crops[0].crop_id)
        gallery.enrol(crops[200:])
        assert gallery.crop_count == len(crops) - 1


def test_room_is_not_promised_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "posix_fallocate", no_room_behind(3 * 2 * DIM))
    empty = index.Index(DIM, folder=tmp_path)
    with empty.room_for(2):
        with pytest.raises(OSError, match="No space left"), empty.room_for(2):
            pass
        with empty.room_for(1):
            pass
    with empty.room_for(3):
        pass


def test_erased_vectors_are_gone_from_the_file_without_a_name(tmp_path: Path) -> None:
    crops = enrolled(people(np.random.default_rng(10), 50, SHOTS))
    with opened(tmp_path, "compressed") as gallery:
        gallery.enrol(crops)
        gallery.delete(crops[7].crop_id)
        rows = gallery._index._vectors._rows
        assert isinstance(rows, rowfile.RowFile)
        content = os.pread(rows._descriptor, 10**6, 0)
    for crop, there in ((crops[6], True), (crops[7], False)):
        assert crop.embedding is not None
        assert (crop.embedding.astype(np.float16).tobytes() in content) == there


def test_an_index_out_of_step_is_not_complained_of_every_second(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []

    def always(searching: Searching, crops: int, present: StageKind | None) -> Kind:
        looks.append(crops)
        return "ivf"

    monkeypatch.setattr(Searching, "stage_for", always)
    with opened(tmp_path) as gallery:
        gallery._index._in_step = False
        looks.clear()
        until(lambda: len(looks) > 5)
        gallery._index._in_step = True
        gallery._builder.close()
    assert not [record for record in caplog.records if "GalleryUnavailable" in str(record.exc_text or record.exc_info)]


def test_a_build_that_fails_is_logged_once_and_tried_again_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[float] = []

    def fail(*_: object) -> None:
        tries.append(time.monotonic())
        raise MemoryError

    with opened(tmp_path) as gallery, monkeypatch.context() as patch:
        patch.setattr(FirstStage, "trained", fail)
        gallery.enrol(enrolled(people(np.random.default_rng(11), PEOPLE, SHOTS)))
        until(lambda: bool(tries))
        time.sleep(0.2)  # twenty looks
        assert len(tries) == 1
        assert [r.getMessage() for r in caplog.records if r.exc_info] == [
            "no first stage could be built; it is tried again in 60 s"
        ]
        gallery._builder._not_before = 0.0
        until(lambda: len(tries) == 2)
        until(lambda: gallery._builder._not_before - tries[1] > 100)
        patch.undo()
        gallery._builder._not_before = 0.0
        staged(gallery)
        until(lambda: gallery._builder._wait == 60)


def test_what_looks_into_every_cell_knows_that_there_are_no_others() -> None:
    vectors = people(np.random.default_rng(12), PEOPLE, SHOTS)
    made = FirstStage.trained("ivf", vectors, len(vectors))
    assert made is not None
    made.add(vectors.astype(np.float16), 1)
    few = np.arange(len(vectors)) < 3
    for effort, exhausted in ((1.0, False), (1000.0, True)):
        assert made.likely(vectors[0], 10, few, effort)[1] == exhausted
    assert sorted(made.likely(vectors[0], 10, few, 1000.0)[0].tolist()) == [0, 1, 2]


def test_training_with_few_vectors_writes_nothing_to_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    assert FirstStage.trained("ivf", units(np.random.default_rng(0), 1000, DIM), 1000) is not None
    assert capfd.readouterr() == ("", "")


def test_adding_takes_the_threads_that_are_given_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []
    monkeypatch.setattr(faiss, "omp_set_num_threads", threads.append)
    crops = enrolled(people(np.random.default_rng(13), PEOPLE, SHOTS))
    with Gallery.open(tmp_path, MODEL, "model-a", DIM, None, None, Searching("ivf", threads=3)) as gallery:
        gallery.enrol(crops[:1500])
        staged(gallery)
        threads.clear()
        gallery.enrol(crops[1500:])
    assert threads == [3]


def no_room_behind(size: int) -> Callable[[int, int, int], None]:
    """A disk that takes what there is room for, and then says that there is no more."""

    def allocate(descriptor: int, start: int, length: int) -> None:
        os.ftruncate(descriptor, max(os.fstat(descriptor).st_size, min(start + length, size)))
        if start + length > size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return allocate
