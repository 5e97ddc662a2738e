"""The gallery's use cases on real SQLite and FAISS."""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from service.gallery import index as index_module
from service.gallery.database import DATABASE_NAME
from service.gallery.folder import SNAPSHOT_NAME
from service.gallery.gallery import Gallery
from service.gallery.records import (
    Crop,
    Filters,
    GalleryDamaged,
    GalleryLocked,
    GalleryUnavailable,
    InvalidCursor,
    InvalidEmbedding,
    Labels,
    ModelMismatch,
    NewCrop,
    QueryOptions,
    UnknownCrop,
)
from tests.service.gallery.cases import (
    START,
    crop_id,
    new_crop,
    open_gallery,
    passes,
    random_filters,
    random_labels,
    units,
)
from tests.service.gallery.conftest import Opening

RNG_SEED = 11


def everything(gallery: Gallery) -> list[Crop]:
    """All crops, by pages of three."""
    crops: list[Crop] = []
    cursor = None
    while True:
        page = gallery.page(Filters(), 3, cursor)
        crops.extend(page.crops)
        cursor = page.next_cursor
        if cursor is None:
            return crops


def test_enrolling_again_is_a_duplicate_or_an_update(opening: Opening) -> None:
    vector = units(np.random.default_rng(RNG_SEED), 1)[0]
    first = Labels("anna", "c1", START, "t1", {"zone": 3})
    with opening() as gallery:
        before = datetime.now(UTC)
        assert gallery.known([crop_id(1)]) == set()
        assert [e.status for e in gallery.enrol([new_crop(1, vector, first)])] == ["created"]
        assert gallery.known([crop_id(1), crop_id(2)]) == {crop_id(1)}
        assert [e.status for e in gallery.enrol([new_crop(1, vector, first)])] == ["duplicate"]
        assert [e.status for e in gallery.enrol([new_crop(1, None, Labels(camera="c1"))])] == ["duplicate"]
        assert [e.status for e in gallery.enrol([new_crop(1, vector)])] == ["duplicate"]
        (updated,) = gallery.enrol([new_crop(1, None, Labels(identity="berta", meta={"zone": 4}))])
        assert (updated.status, updated.identity, updated.camera) == ("updated", "berta", "c1")
        crop = gallery.get(crop_id(1))
        assert before <= crop.enrolled_at <= datetime.now(UTC)
        expected = Crop(crop_id(1), "berta", "c1", START, "t1", {"zone": 4}, crop.enrolled_at)
        assert crop == expected
        assert gallery.query(vector[np.newaxis], QueryOptions()).matches[0].identity == "berta"
        assert (gallery.crop_count, gallery.identity_count) == (1, 1)


def test_true_and_1_are_different_labels(opening: Opening) -> None:
    (vector,) = units(np.random.default_rng(0), 1)
    with opening() as gallery:
        gallery.enrol([new_crop(1, vector, Labels(meta={"seen": True}))])
        for status in ("updated", "duplicate"):
            (one,) = gallery.enrol([new_crop(1, None, Labels(meta={"seen": 1}))])
            assert one.status == status
            assert json.dumps(gallery.get(crop_id(1)).meta) == '{"seen": 1}'


def test_the_same_crop_twice_in_one_call(opening: Opening) -> None:
    vector = units(np.random.default_rng(RNG_SEED), 1)[0]
    with opening() as gallery:
        items = [new_crop(1, vector, Labels("a")), new_crop(1, vector), new_crop(1, vector, Labels("b"))]
        assert [e.status for e in gallery.enrol(items)] == ["created", "duplicate", "updated"]
        answer = gallery.query(vector[np.newaxis], QueryOptions())
        assert [m.identity for m in answer.matches] == ["b"]


def test_one_call_is_all_or_nothing(opening: Opening) -> None:
    vectors = units(np.random.default_rng(RNG_SEED), 3)
    with opening() as gallery:
        with pytest.raises(UnknownCrop) as unknown:
            gallery.enrol([new_crop(1, vectors[0]), new_crop(2, None, Labels("a"))])
        assert unknown.value.crop_id == crop_id(2)
        with pytest.raises(InvalidEmbedding):
            gallery.enrol([new_crop(1, vectors[0]), new_crop(2, np.zeros(16, np.float32))])
        with pytest.raises(InvalidEmbedding):
            gallery.enrol([new_crop(1, vectors[0]), new_crop(2, np.ones(15, np.float32))])
        with pytest.raises(ValueError, match="UUID"):
            gallery.enrol([new_crop(1, vectors[0]), replace(new_crop(2, vectors[1]), crop_id="B" * 36)])
        with pytest.raises(TypeError):  # meta that no JSON can hold fails inside the transaction
            gallery.enrol([new_crop(1, vectors[0]), new_crop(2, vectors[1], Labels(meta={"a": object()}))])
        assert gallery.crop_count == 0
        assert everything(gallery) == []
        assert gallery.query(vectors[:1], QueryOptions()).searched == 0
        assert [e.status for e in gallery.enrol([new_crop(1, vectors[0])])] == ["created"]


def test_times_need_an_offset_and_come_back_in_utc(opening: Opening) -> None:
    vector = units(np.random.default_rng(RNG_SEED), 1)[0]
    nowhere = datetime(2026, 1, 1)
    with pytest.raises(ValueError, match="UTC offset"):
        Labels(captured_at=nowhere)
    with pytest.raises(ValueError, match="UTC offset"):
        Filters(since=nowhere)
    there = datetime(2026, 11, 22, 12, 0, 0, 123457, timezone(timedelta(hours=2)))
    with opening() as gallery:
        gallery.enrol([new_crop(1, vector, Labels(captured_at=there))])
        captured_at = gallery.get(crop_id(1)).captured_at
        assert captured_at == there
        assert captured_at is not None
        assert captured_at.tzinfo is UTC


def test_unknown_crops(opening: Opening) -> None:
    with opening() as gallery:
        calls: list[Callable[[str], object]] = [gallery.get, gallery.image, gallery.delete]
        calls.append(lambda name: gallery.embeddings([name]))
        for call in calls:
            for name in (crop_id(1), "no uuid", "'; DROP TABLE crops"):
                with pytest.raises(UnknownCrop, match=name):
                    call(name)


def test_images_and_embeddings_come_back(tmp_path: Path) -> None:
    vectors = units(np.random.default_rng(RNG_SEED), 3)
    with open_gallery(tmp_path) as gallery:
        gallery.enrol([NewCrop(crop_id(0), vectors[0], None, Labels()), new_crop(1, vectors[1])])
        assert gallery.image(crop_id(0)) is None
        assert gallery.image(crop_id(1)) == b"jpeg 1"
        stored = gallery.embeddings([crop_id(1), crop_id(0), crop_id(1)])
        assert stored.dtype == np.float32
        np.testing.assert_array_equal(stored, vectors[[1, 0, 1]].astype(np.float16))
        nearest = gallery.query(stored[:1], QueryOptions()).matches[0]
        assert (nearest.crop.crop_id, nearest.distance, nearest.similarity) == (crop_id(1), 0.0, 1.0)


def test_a_deleted_crop_leaves_no_byte_behind(tmp_path: Path) -> None:
    vectors = units(np.random.default_rng(RNG_SEED), 50, 512)
    thumbnail = np.random.default_rng(0).bytes(9000)
    items = [new_crop(n, v, Labels("anna")) for n, v in enumerate(vectors)]
    items[7] = NewCrop(crop_id(7), vectors[7], thumbnail, Labels("secret-name"))
    traces = [b"secret-name", crop_id(7).encode(), thumbnail[2000:2016], vectors[7].astype("<f2").tobytes()[:16]]
    with open_gallery(tmp_path, 512) as gallery:
        gallery.enrol(items)
        content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
        assert all(trace in content for trace in traces)
        gallery.delete(crop_id(7))
        content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
        assert not any(trace in content for trace in traces)
        with pytest.raises(UnknownCrop):
            gallery.get(crop_id(7))
        answer = gallery.query(vectors[7:8], QueryOptions(crops_per_identity=100))
        assert answer.searched == gallery.crop_count == 49
        assert {m.identity for m in answer.matches} == {"anna"}
        assert crop_id(7) not in {hit.crop.crop_id for m in answer.matches for hit in m.crops}


def test_deleting_many_compacts_the_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "COMPACT_MINIMUM", 8)
    rng = np.random.default_rng(RNG_SEED)
    vectors = units(rng, 60)
    left = set(range(60))
    with open_gallery(tmp_path) as gallery:
        gallery.enrol([new_crop(n, v, Labels(f"p{n % 7}")) for n, v in enumerate(vectors)])
        for n in rng.permutation(60)[:50].tolist():
            gallery.delete(crop_id(n))
            left.remove(n)
            survivor = int(rng.choice(sorted(left)))
            nearest = gallery.query(vectors[survivor][np.newaxis], QueryOptions()).matches[0]
            assert (nearest.crop.crop_id, nearest.distance) == (crop_id(survivor), 0.0)
            assert nearest.identity == f"p{survivor % 7}"
        assert len(gallery._index.columns) < 60
        gallery.enrol([new_crop(100, vectors[0], Labels("new")), new_crop(min(left), None, Labels("named"))])
        assert gallery.query(vectors[:1], QueryOptions(top_k=1)).matches[0].distance == 0
        assert {c.crop_id for c in everything(gallery)} == {crop_id(n) for n in left | {100}}
        for n in left | {100}:
            gallery.delete(crop_id(n))
        assert gallery.query(vectors[:1], QueryOptions()).verdict == "empty_gallery"
        assert gallery.identity_count == 0


@pytest.mark.parametrize("seed", range(3))
def test_pages_meet_every_crop_once(opening: Opening, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = units(rng, 80)
    crops = [new_crop(int(n), v, random_labels(rng, 6)) for n, v in zip(rng.permutation(80), vectors, strict=True)]
    with opening() as gallery:
        gallery.enrol(crops)
        for _ in range(30 if opening.quick else 6):
            filters, limit = random_filters(rng, 6), int(rng.integers(1, 30))
            found, cursor = [], None
            while True:
                page = gallery.page(filters, limit, cursor)
                assert len(page.crops) == limit or page.next_cursor is None
                found += [crop.crop_id for crop in page.crops]
                cursor = page.next_cursor
                if cursor is None:
                    break
            assert page.crops or not found  # a last page that is just full is known to be the last
            assert found == [crop.crop_id for crop in crops if passes(crop.labels, filters)]


def test_pages_stand_while_the_gallery_changes(opening: Opening) -> None:
    vectors = units(np.random.default_rng(RNG_SEED), 12)
    with opening() as gallery:
        gallery.enrol([new_crop(n, vectors[n]) for n in (9, 3, 7, 1, 5)])
        first = gallery.page(Filters(), 2, None)
        assert [c.crop_id for c in first.crops] == [crop_id(9), crop_id(3)]
        gallery.delete(crop_id(3))  # the crop that the cursor stands on
        gallery.delete(crop_id(1))
        gallery.enrol([new_crop(0, vectors[0])])
        second = gallery.page(Filters(), 2, first.next_cursor)
        assert [c.crop_id for c in second.crops] == [crop_id(7), crop_id(5)]
    with opening() as gallery:  # a cursor outlives a restart
        last = gallery.page(Filters(), 2, second.next_cursor)
        assert ([c.crop_id for c in last.crops], last.next_cursor) == ([crop_id(0)], None)


@pytest.mark.parametrize("cursor", ["", "1", "MTox!", "é", "MTotMQ", "MTow", "MjoxMg", "A" * 200, "MToxMg=="])
def test_foreign_cursors_are_refused(opening: Opening, cursor: str) -> None:
    with opening() as gallery, pytest.raises(InvalidCursor):
        gallery.page(Filters(), 10, cursor)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_page_holds_something(opening: Opening, limit: int) -> None:
    with opening() as gallery, pytest.raises(ValueError, match="at least 1"):
        gallery.page(Filters(), limit, None)


def test_a_restart_changes_no_answer(opening: Opening) -> None:
    rng = np.random.default_rng(RNG_SEED)
    vectors, queries = units(rng, 300, 33), units(rng, 20, 33)
    options = [QueryOptions(top_k=8, filters=random_filters(rng, 20)) for _ in queries]

    def answers(gallery: Gallery) -> list[object]:
        asked = zip(queries, options, strict=True)
        return [gallery.query(q[np.newaxis], o) for q, o in asked] + [everything(gallery)]

    with opening(33, match_distance=0.6) as gallery:
        gallery.enrol([new_crop(n, v, random_labels(rng, 20)) for n, v in enumerate(vectors)])
        gallery.enrol([new_crop(n, None, random_labels(rng, 20)) for n in range(0, 300, 7)])
        for n in range(5, 300, 11):
            gallery.delete(crop_id(n))
        before = answers(gallery)
    with opening(33, match_distance=0.6) as gallery:
        assert answers(gallery) == before


def test_one_process_owns_the_folder(tmp_path: Path) -> None:
    with open_gallery(tmp_path), pytest.raises(GalleryLocked, match=str(tmp_path)):
        open_gallery(tmp_path)
    open_gallery(tmp_path).close()


def test_a_gallery_belongs_to_one_model(tmp_path: Path) -> None:
    vector = units(np.random.default_rng(RNG_SEED), 1)[0]
    open_gallery(tmp_path).close()
    with open_gallery(tmp_path, dim=8, model="b" * 64) as gallery:  # empty: it adopts the model
        gallery.enrol([new_crop(1, vector[:8])])
    with pytest.raises(ModelMismatch, match=r"model-b .* model-a"):
        open_gallery(tmp_path)
    with open_gallery(tmp_path, dim=8, model="b" * 64) as gallery:
        gallery.delete(crop_id(1))
    with open_gallery(tmp_path) as gallery:
        gallery.enrol([new_crop(1, vector)])


def test_a_damaged_vector_is_reported_left_out_and_healed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    vectors = units(np.random.default_rng(RNG_SEED), 6)
    with open_gallery(tmp_path) as gallery:
        gallery.enrol([new_crop(n, v, Labels(f"p{n}")) for n, v in enumerate(vectors)])
    with sqlite3.connect(tmp_path / DATABASE_NAME) as connection:
        connection.execute("UPDATE embeddings SET vector = zeroblob(32) WHERE row = 2")
        connection.execute("UPDATE embeddings SET vector = x'00' WHERE row = 4")
        connection.execute("DELETE FROM embeddings WHERE row = 5")
    connection.close()
    (tmp_path / SNAPSHOT_NAME).unlink()  # whose vectors are sound
    damaged = [crop_id(1), crop_id(3), crop_id(4)]
    with caplog.at_level(logging.ERROR), open_gallery(tmp_path) as gallery:
        assert [r.args for r in caplog.records] == [(name,) for name in damaged]
        answer = gallery.query(vectors[1:2], QueryOptions())
        assert (answer.searched, gallery.crop_count) == (3, 6)
        assert {m.identity for m in answer.matches} == {"p0", "p2", "p5"}
        assert gallery.get(crop_id(1)).identity == "p1"
        assert len(everything(gallery)) == 6
        assert gallery.known(map(crop_id, range(6))) == {crop_id(0), crop_id(2), crop_id(5)}
        with pytest.raises(GalleryDamaged, match=crop_id(1)):
            gallery.embeddings([crop_id(0), crop_id(1)])
        again = [new_crop(n, vectors[n]) for n in (0, 1, 3, 4)]
        assert [e.status for e in gallery.enrol(again)] == ["duplicate", "updated", "updated", "updated"]
        check_healed(gallery)
        gallery.delete(crop_id(4))
    caplog.clear()
    with open_gallery(tmp_path) as gallery:
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert gallery.query(vectors[3:4], QueryOptions()).searched == 5


def check_healed(gallery: Gallery) -> None:
    vectors = units(np.random.default_rng(RNG_SEED), 6)
    for n, vector in enumerate(vectors):
        nearest = gallery.query(vector[np.newaxis], QueryOptions()).matches[0]
        assert (nearest.identity, nearest.distance) == (f"p{n}", 0.0)
    np.testing.assert_array_equal(gallery.embeddings([crop_id(3)]), vectors[3:4].astype(np.float16))


def test_queries_see_every_acknowledged_write_and_no_erased_crop(opening: Opening) -> None:
    per_thread, threads = (40 if opening.quick else 6), 4
    vectors = units(np.random.default_rng(RNG_SEED), per_thread * threads, 64)
    stop = threading.Event()

    def write(thread: int) -> None:
        for n in range(thread * per_thread, (thread + 1) * per_thread):
            gallery.enrol([new_crop(n, vectors[n], Labels(f"p{thread}"))])
            nearest = gallery.query(vectors[n][np.newaxis], QueryOptions()).matches[0]
            assert (nearest.crop.crop_id, nearest.distance) == (crop_id(n), 0.0)
            if n % 3 == 0:
                gallery.delete(crop_id(n))
                nearest = gallery.query(vectors[n][np.newaxis], QueryOptions()).matches[0]
                assert nearest.crop.crop_id != crop_id(n)

    def read() -> int:
        rounds = 0
        while not stop.is_set():
            answer = gallery.query(vectors[rounds % len(vectors)][np.newaxis], QueryOptions(top_k=3))
            assert len(answer.matches) <= threads
            assert all(m.crop.identity == m.identity for m in answer.matches)
            gallery.page(Filters(), 50, None)
            rounds += 1
        return rounds

    with opening(64) as gallery:
        gallery.enrol([new_crop(10_000, vectors[0] + vectors[1], Labels("p0"))])
        with ThreadPoolExecutor(threads + 2) as pool:
            readers = [pool.submit(read) for _ in range(2)]
            writers = [pool.submit(write, thread) for thread in range(threads)]
            try:
                for writer in writers:
                    writer.result(timeout=60)
            finally:
                stop.set()
            assert all(reader.result(timeout=60) for reader in readers)
        expected = {crop_id(n) for n in range(per_thread * threads) if n % 3} | {crop_id(10_000)}
        assert {crop.crop_id for crop in everything(gallery)} == expected


def test_hits_show_the_labels_of_now_without_a_look_into_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(RNG_SEED)
    vectors = units(rng, 40)
    crops = [new_crop(n, v, replace(random_labels(rng, 5), meta={"n": n})) for n, v in enumerate(vectors)]
    everyone = QueryOptions(top_k=40, crops_per_identity=40)

    def check(gallery: Gallery, labels: dict[str, Labels]) -> None:
        def no_file() -> None:
            raise AssertionError

        with monkeypatch.context() as patch:
            patch.setattr(gallery._store._database, "reading", no_file)
            answer = gallery.query(vectors[:1], everyone)
        hits = [hit.crop for match in answer.matches for hit in match.crops]
        shown = {crop.crop_id: (crop.identity, crop.camera, crop.captured_at) for crop in hits}
        assert shown == {name: (x.identity, x.camera, x.captured_at) for name, x in labels.items()}
        assert all(match.identity == hit.crop.identity for match in answer.matches for hit in match.crops)

    with open_gallery(tmp_path) as gallery:
        gallery.enrol(crops)
        gallery.delete(crop_id(3))
        moved = Labels("p9", "c9", START + timedelta(days=400, microseconds=7))
        gallery.enrol([new_crop(4, None, moved)])
        labels = {crop.crop_id: crop.labels for crop in crops if crop.crop_id != crop_id(3)} | {crop_id(4): moved}
        check(gallery, labels)
    with open_gallery(tmp_path) as gallery:
        check(gallery, labels)


def test_counts_follow_every_write_and_wait_for_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "COMPACT_MINIMUM", 8)
    rng = np.random.default_rng(RNG_SEED)
    vectors = units(rng, 40)
    people: dict[int, str | None] = {}

    def counts(gallery: Gallery) -> tuple[int, int]:
        return gallery.crop_count, gallery.identity_count

    with ThreadPoolExecutor(1) as pool:
        for _ in range(3):
            with open_gallery(tmp_path) as gallery:
                assert counts(gallery) == (len(people), len(set(people.values()) - {None}))
                for _ in range(60):
                    n = int(rng.integers(40))
                    if n in people and rng.random() < 0.5:
                        gallery.delete(crop_id(n))
                        del people[n]
                    else:
                        name = random_labels(rng, 6).identity
                        gallery.enrol([new_crop(n, vectors[n], Labels(name))])
                        people[n] = name or people.get(n)
                    assert counts(gallery) == (len(people), len(set(people.values()) - {None}))
                with gallery._index._lock.writing():  # as in the middle of a long write
                    assert pool.submit(counts, gallery).result(30) == counts(gallery)
                    assert pool.submit(getattr, gallery, "trouble").result(30) is None


def test_a_closed_gallery_says_so(tmp_path: Path) -> None:
    gallery = open_gallery(tmp_path)
    assert gallery.alive
    gallery.close()
    gallery.close()
    assert not gallery.alive
    assert gallery.trouble == "the gallery is closed"
    with pytest.raises(GalleryUnavailable, match="closed"):
        gallery.enrol([new_crop(1, units(np.random.default_rng(0), 1)[0])])
    with pytest.raises(GalleryUnavailable, match="closed"):
        gallery.get(crop_id(1))
