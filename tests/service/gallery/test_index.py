"""The vectors in memory and the lock around them."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from service.gallery.changes import Entry
from service.gallery.columns import Columns
from service.gallery.finding import compare_all
from service.gallery.lock import ReadWriteLock
from service.gallery.members import NOBODY, Members
from service.gallery.records import Filters
from service.gallery.vectors import Vectors
from tests.service.gallery.cases import crop_id, units


@pytest.mark.parametrize("dim", [1, 7, 64, 2048])
def test_vectors_are_kept_bit_for_bit_and_measured_alike_everywhere(dim: int) -> None:
    rng = np.random.default_rng(dim)
    data = units(rng, 130, dim).astype(np.float16)
    data[3, 0] = np.float16(6e-8)  # subnormal
    data[[5, 77, 129]] = data[8]
    vectors = Vectors(dim)
    vectors.append(data[:100])
    vectors.append(data[100:])
    query = units(rng, 1, dim)[0]
    everywhere = np.arange(130)
    squared = vectors.measure(query, everywhere)
    difference = data.astype(np.float64) - query
    np.testing.assert_allclose(squared, (difference**2).sum(axis=1), rtol=1e-5)
    assert len(set(squared[[5, 8, 77, 129]].tolist())) == 1
    for start in range(0, 130, 13):
        alone = np.concatenate([vectors.measure(query, everywhere[i : i + 1]) for i in range(start, start + 13)])
        np.testing.assert_array_equal(alone, squared[start : start + 13])
    for row in (3, 8, 100):
        assert vectors.measure(data[row].astype(np.float32), np.array([row])) == 0


def test_vectors_searched_dropped_and_replaced() -> None:
    rng = np.random.default_rng(1)
    data = units(rng, 50).astype(np.float16)
    vectors = Vectors(16)
    vectors.append(data)
    keep = rng.random(50) < 0.6
    vectors.keep(keep)
    data = data[keep]
    vectors.replace(4, -data[4])
    data[4] *= -1
    assert len(vectors) == len(data)
    query = units(rng, 1)[0]
    distances = np.linalg.norm(data.astype(np.float64) - query, axis=1)
    for mask in (None, rng.random(len(data)) < 0.5):
        allowed = np.arange(len(data)) if mask is None else np.flatnonzero(mask)
        expected = allowed[np.argsort(distances[allowed])]
        found, squared = vectors.search(query, 7, mask)
        np.testing.assert_array_equal(found, expected[:7])
        np.testing.assert_allclose(squared, distances[found] ** 2, rtol=1e-5)
        assert len(vectors.search(query, 1000, mask)[0]) == len(allowed)


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("dim", [1, 7, 64, 2048])
def test_comparing_many_queries_is_as_true_as_it_says(tmp_path: Path, dim: int, on_disk: bool) -> None:
    rng = np.random.default_rng(dim)
    data = units(rng, 2100, dim).astype(np.float16)  # more than two blocks
    vectors = Vectors(dim, folder=tmp_path if on_disk else None)
    vectors.append(data[:1000])
    vectors.append(data[1000:])
    keep = rng.random(len(data)) < 0.9
    vectors.keep(keep)
    data = data[keep]
    data[7] = data[5]
    vectors.replace(7, data[5])
    queries = np.concatenate([units(rng, 5, dim), data[:2].astype(np.float32)])
    mask = rng.random(len(data)) < 0.3
    masks = [None, mask, None, mask, None, mask, None]
    for query, mine, found in zip(queries, masks, compare_all(vectors, queries, masks), strict=True):
        squared = ((data.astype(np.float64) - query) ** 2).sum(axis=1)
        allowed = np.arange(len(data)) if mine is None else np.flatnonzero(mine)
        expected = np.sort(squared[allowed])
        for k in (1, 10, len(data)):
            positions, near = found.nearest(k)
            assert len(positions) == min(k, len(allowed))
            assert set(positions.tolist()) <= set(allowed.tolist())
            assert np.all(np.abs(near - squared[positions]) <= found.error)
            assert np.all(np.abs(near - expected[: len(near)]) <= 2 * found.error)
            assert np.all(np.diff(near) >= 0)


def test_vectors_in_a_file_are_those_in_memory(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    data = units(rng, 5000, 64).astype(np.float16)
    memory, file = Vectors(64), Vectors(64, folder=tmp_path)
    file.reserve(10)
    keep = rng.random(5000) < 0.6
    for vectors in (memory, file):
        for start in range(0, 5000, 700):
            vectors.append(data[start : start + 700])
        vectors.keep(keep)
        vectors.append(data[:50])
        vectors.replace(3, data[7])
    some = rng.integers(len(memory), size=3000)
    query = units(rng, 1, 64)[0]
    np.testing.assert_array_equal(file.stored(some), memory.stored(some))
    run = np.arange(900, 2200)  # neighbours, read at once
    np.testing.assert_array_equal(file.stored(np.concatenate([run, some])), memory.stored(np.concatenate([run, some])))
    assert file.stored(run[:0]).shape == (0, 64)
    np.testing.assert_array_equal(file.measure(query, some), memory.measure(query, some))
    assert not list(tmp_path.iterdir())  # nothing to be left behind


def test_what_was_reserved_is_never_moved() -> None:
    data = units(np.random.default_rng(2), 130).astype(np.float16)

    def places(vectors: Vectors) -> set[int]:
        found = set()
        for part in (data[:100], data[100:]):
            vectors.append(part)
            (block,) = vectors._rows.blocks(130)
            found.add(int(block.ctypes.data))
        return found

    reserved = Vectors(16)
    reserved.reserve(130)
    assert len(reserved) == 0
    assert len(places(reserved)) == 1
    assert len(places(Vectors(16))) == 2  # what reserving spares
    everywhere = np.arange(130)
    np.testing.assert_array_equal(reserved.measure(data[5].astype(np.float32), everywhere)[5], 0)
    assert reserved.search(data[120].astype(np.float32), 1, None)[0] == 120


def test_columns_in_reserved_room() -> None:
    columns = Columns()
    columns.reserve(3)
    room = columns._row._buffer
    entries = [Entry(n, crop_id(n), f"p{n}", None, None) for n in (1, 2, 4)]
    columns.append(entries[:2], np.ones(2, np.bool_))
    columns.append(entries[2:], np.ones(1, np.bool_))
    assert columns._row._buffer is room
    assert columns.row.tolist() == [1, 2, 4]
    columns.append([Entry(5, crop_id(5), "p5", "c1", 0)], np.ones(1, np.bool_))
    assert [crop.identity for crop in columns.crops(np.arange(4))] == ["p1", "p2", "p4", "p5"]


def test_names_that_nobody_has_go_with_the_removed_crops() -> None:
    columns = Columns()
    named = [("p0", "c0"), ("p1", "c1"), (None, None), ("p2", "c0"), ("p3", "c2")]
    columns.append([Entry(n, crop_id(n), p, c, None) for n, (p, c) in enumerate(named)], np.ones(5, np.bool_))
    columns.relabel(Entry(4, crop_id(4), "p4", "c1", None))
    columns.remove(0)
    columns.keep(columns.present.copy())
    assert columns._identities._names == ["p1", "p2", "p4"]
    assert columns._cameras._names == ["c0", "c1"]

    def check(expected: list[tuple[str | None, str | None]]) -> None:
        shown = columns.crops(np.arange(len(columns)))
        assert [(crop.identity, crop.camera) for crop in shown] == expected
        for name in ("p0", "p1", "p2", "p3", "p4", "p5"):
            mask = [identity == name for identity, _ in expected]
            assert columns.select(Filters(identities=frozenset({name}))).tolist() == mask
        for crop, code in zip(shown, columns.identity.tolist(), strict=True):
            mine = [position for position, (identity, _) in enumerate(expected) if identity == crop.identity]
            assert code == NOBODY or sorted(columns.members(np.array([code])).tolist()) == mine

    check([("p1", "c1"), (None, None), ("p2", "c0"), ("p4", "c1")])
    columns.append([Entry(7, crop_id(7), "p0", "c2", None)], np.ones(1, np.bool_))
    columns.relabel(Entry(1, crop_id(1), "p5", "c2", None))
    check([("p5", "c2"), (None, None), ("p2", "c0"), ("p4", "c1"), ("p0", "c2")])
    assert columns.identity_count == 4


def test_what_is_damaged_costs_an_unfiltered_query_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = Columns()
    names = ["p0", "p1", "p1", None, None, "p2"]
    sound = np.array([False, False, True, False, True, True])
    columns.append([Entry(n, crop_id(n), name, None, None) for n, name in enumerate(names)], sound)
    slow = columns.select

    def same() -> tuple[list[bool], int, int]:
        """What is selected, with nothing looked through."""
        with monkeypatch.context() as patch:
            patch.setattr(columns, "select", None)
            selection = columns.selection(Filters())
        mask = slow(Filters()) & columns.searchable
        assert (mask if selection.mask is None else selection.mask).tolist() == mask.tolist()
        assert selection.count == np.count_nonzero(mask)
        codes = columns.identity[mask]
        assert selection.candidates == len(set(codes[codes != NOBODY])) + np.count_nonzero(codes == NOBODY)
        return mask.tolist(), selection.count, selection.candidates

    assert same() == (sound.tolist(), 3, 3)
    columns.relabel(Entry(2, crop_id(2), "p0", None, None))
    assert same()[1:] == (3, 3)
    columns.mark_searchable(1)
    assert same()[1:] == (4, 4)
    columns.remove(0)
    columns.remove(5)
    assert same()[1:] == (3, 3)
    columns.keep(columns.present.copy())
    assert same()[1:] == (3, 3)
    columns.mark_searchable(columns.position(3))
    assert same()[1:] == (4, 4)
    assert columns.selection(Filters()).mask is None


def test_members_come_and_go_in_any_order() -> None:
    rng = np.random.default_rng(4)
    members = Members()
    expected: dict[int, int] = {}
    for _ in range(40):
        fresh = rng.permutation(np.setdiff1d(np.arange(400), list(expected)))[: rng.integers(30)]
        codes = rng.integers(NOBODY, 6, len(fresh)).astype(np.int32)
        members.add(codes, fresh)
        expected |= zip(fresh.tolist(), codes.tolist(), strict=True)
        for position in rng.permutation(list(expected))[: rng.integers(25)].tolist():
            members.remove(expected.pop(position), position)
        present = sorted({code for code in expected.values() if code != NOBODY})
        assert members.identities == len(present)
        assert members.unnamed == sum(code == NOBODY for code in expected.values())
        for code in present:
            mine = [position for position, its in expected.items() if its == code]
            assert sorted(members.of(np.array([code])).tolist()) == sorted(mine)
            assert members.count(code) == len(mine)


def test_readers_share_and_a_waiting_writer_goes_first() -> None:
    lock = ReadWriteLock()
    events: list[str] = []
    both_in = threading.Barrier(3)
    leave = threading.Event()

    def read_early() -> None:
        with lock.reading():
            both_in.wait(30)
            assert leave.wait(30)
            events.append("early reader")

    def write() -> None:
        with lock.writing():
            events.append("writer")

    def read_late() -> None:
        with lock.reading():
            events.append("late reader")

    threads = [threading.Thread(target=read_early) for _ in range(2)]
    for thread in threads:
        thread.start()
    both_in.wait(30)  # two readers are inside at once
    threads.append(threading.Thread(target=write))
    threads[-1].start()
    while not lock._writers_waiting:
        threading.Event().wait(0.001)
    threads.append(threading.Thread(target=read_late))
    threads[-1].start()
    leave.set()
    for thread in threads:
        thread.join(30)
    assert events == ["early reader", "early reader", "writer", "late reader"]
