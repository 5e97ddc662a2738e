"""Group commit, failing writes, a writer that dies, and the order of publishing."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from service.gallery import database as database_module
from service.gallery import writer as writer_module
from service.gallery.database import DATABASE_NAME, Database
from service.gallery.records import (
    Filters,
    GalleryFull,
    GalleryUnavailable,
    Labels,
    NewCrop,
    QueryOptions,
)
from tests.service.gallery.cases import crop_id, new_crop, open_gallery, units, until
from tests.service.gallery.numbered import FIRST, insert, numbers


def test_waiting_writes_share_a_commit_and_fail_alone(tmp_path: Path) -> None:
    database = Database.open(tmp_path, [FIRST])
    running, go_on = threading.Event(), threading.Event()
    published: list[int] = []
    commits: list[str] = []

    def slow(connection: sqlite3.Connection) -> int:
        connection.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)
        running.set()
        assert go_on.wait(30)
        return -1

    def add(number: int) -> int:
        def transaction(connection: sqlite3.Connection) -> int:
            connection.execute("INSERT INTO numbers (n) VALUES (?)", (number,))
            return number

        return database.write(transaction, published.append)

    insert(database, 5)
    with ThreadPoolExecutor(10) as pool:
        first = pool.submit(database.write, slow)
        assert running.wait(30)
        waiting = {n: pool.submit(add, n) for n in range(8)}
        until(lambda: database._writer._waiting.qsize() == 8)
        go_on.set()
        assert first.result(30) == -1
        with pytest.raises(sqlite3.IntegrityError):  # 5 is there already
            waiting.pop(5).result(30)
        assert {n: future.result(30) for n, future in waiting.items()} == {n: n for n in waiting}
    assert sorted(published) == sorted(waiting)
    assert numbers(database) == list(range(8))
    assert commits == ["COMMIT", "COMMIT"]
    database.close()


def test_publishing_follows_the_commits_and_precedes_the_answer(tmp_path: Path) -> None:
    database = Database.open(tmp_path, [FIRST])
    published: list[int] = []

    def add(number: int) -> None:
        def transaction(connection: sqlite3.Connection) -> int | None:
            return connection.execute("INSERT INTO numbers (n) VALUES (NULL)").lastrowid

        def publish(row: int | None) -> None:
            assert row is not None
            published.append(row)

        row = database.write(transaction, publish)
        assert row in published

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(100)))
    assert published == list(range(1, 101))
    database.close()


def test_a_full_disk_fails_the_write_and_not_the_gallery(tmp_path: Path) -> None:
    vectors = units(np.random.default_rng(0), 3)
    with open_gallery(tmp_path) as gallery:
        gallery.enrol([new_crop(1, vectors[0])])
        database = gallery._store._database

        def set_limit(pages: int) -> None:
            database.write(lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}").fetchone())

        set_limit(1)  # SQLite raises it to the present size: no page more
        big = NewCrop(crop_id(3), vectors[2], b"x" * 100_000)
        with pytest.raises(GalleryFull, match="the disk is full; free space, then send it again"):
            gallery.enrol([new_crop(2, vectors[1]), big])
        assert gallery.crop_count == 1
        assert gallery.query(vectors[:1], QueryOptions()).searched == 1
        set_limit(1_000_000)
        gallery.enrol([new_crop(2, vectors[1])])
        assert gallery.crop_count == 2


def failing_writes(database: Database, pool: ThreadPoolExecutor, end: Callable[..., None]) -> list[Future[object]]:
    """Three writes of one group, of which the second fails, and two that wait behind them."""
    running, go_on = threading.Event(), threading.Event()

    def slow(_: sqlite3.Connection) -> None:
        running.set()
        assert go_on.wait(30)

    def add(number: int) -> Callable[[sqlite3.Connection], object]:
        return lambda connection: connection.execute("INSERT INTO numbers VALUES (?)", (number,)).rowcount

    first = pool.submit(database.write, slow)
    assert running.wait(30)
    writes: list[Future[object]] = []
    for number in range(5):
        if number == 1:
            writes.append(pool.submit(database.write, end, end))
        else:
            writes.append(pool.submit(database.write, add(number)))
        until(lambda: database._writer._waiting.qsize() == len(writes))
    go_on.set()
    first.result(30)
    return writes


class Deaths:
    """Ways in which the writer thread may end, as a transaction and its publication in one."""

    @staticmethod
    def in_transaction(_: object) -> None:
        raise SystemExit("out of handles")

    @staticmethod
    def in_publication(argument: object) -> None:
        if not isinstance(argument, sqlite3.Connection):
            raise MemoryError("out of handles")


@pytest.mark.parametrize(("end", "stored"), [(Deaths.in_transaction, []), (Deaths.in_publication, [0, 2])])
def test_nobody_waits_for_a_dead_writer(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    end: Callable[..., None],
    stored: list[int],
) -> None:
    monkeypatch.setattr(writer_module, "GROUP_LIMIT", 3)
    database = Database.open(tmp_path, [FIRST])
    assert database.trouble is None
    with ThreadPoolExecutor(8) as pool:
        for write in failing_writes(database, pool, end):
            with pytest.raises(GalleryUnavailable, match=r"writer died of .*out of handles"):
                write.result(30)
    assert [record.levelname for record in caplog.records] == ["CRITICAL"]
    assert database.trouble is not None
    assert "out of handles" in database.trouble
    with pytest.raises(GalleryUnavailable, match="restart the service"):
        insert(database, 9)
    assert numbers(database) == stored  # reading goes on
    database.close()
    again = Database.open(tmp_path, [FIRST])
    insert(again, 10)
    assert numbers(again) == [*stored, 10]
    again.close()


def test_a_writer_that_dies_while_it_is_closed_answers_everybody(tmp_path: Path) -> None:
    database = Database.open(tmp_path, [FIRST])
    running, go_on = threading.Event(), threading.Event()

    def slow(_: sqlite3.Connection) -> None:
        running.set()
        assert go_on.wait(30)
        raise SystemExit

    with ThreadPoolExecutor(3) as pool:
        writes = [pool.submit(database.write, slow)]
        assert running.wait(30)
        writes.append(pool.submit(insert, database, 1))
        until(lambda: database._writer._waiting.qsize() == 1)
        closing = pool.submit(database.close)
        until(lambda: database.trouble is not None)
        go_on.set()
        for write in writes:
            with pytest.raises(GalleryUnavailable, match="SystemExit"):
                write.result(30)
        closing.result(30)
    Database.open(tmp_path, [FIRST]).close()


def test_a_deletion_that_a_reader_holds_up_is_finished_when_it_lets_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(database_module, "BUSY_SECONDS", 0.01)
    monkeypatch.setattr(writer_module, "TRUNCATION_RETRY_SECONDS", 0.01)
    caplog.set_level(logging.INFO, "service.gallery")
    vectors = units(np.random.default_rng(0), 3)

    def on_disk(trace: bytes) -> bool:
        return any(trace in path.read_bytes() for path in tmp_path.iterdir())

    def logged() -> list[str]:
        return [record.levelname for record in caplog.records]

    with open_gallery(tmp_path) as gallery:
        gallery.enrol([new_crop(n, v, Labels(f"name-{n}")) for n, v in enumerate(vectors[:2])])
        with closing(sqlite3.connect(tmp_path / DATABASE_NAME)) as reader:
            reader.execute("BEGIN")
            assert reader.execute("SELECT count(*) FROM crops").fetchone() == (2,)
            gallery.delete(crop_id(1))
            assert gallery.crop_count == 1
            assert on_disk(b"name-1")
            gallery.enrol([new_crop(2, vectors[2], Labels("name-2"))])
            gallery.delete(crop_id(2))
            assert logged() == ["WARNING"]  # once, however often it is tried
        until(lambda: len(logged()) == 2)
        assert logged() == ["WARNING", "INFO"]
        assert [on_disk(b"name-%d" % n) for n in range(3)] == [True, False, False]


@pytest.mark.parametrize("step", ["append", "relabel", "remove"])
def test_an_index_that_fails_is_reported_and_healed_by_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    vectors = units(np.random.default_rng(0), 2)
    with open_gallery(tmp_path) as gallery:
        gallery.enrol([new_crop(1, vectors[0], Labels("a"))])
        writes: dict[str, Callable[[], object]] = {
            "append": lambda: gallery.enrol([new_crop(2, vectors[1])]),
            "relabel": lambda: gallery.enrol([new_crop(1, None, Labels("b"))]),
            "remove": lambda: gallery.delete(crop_id(1)),
        }

        def out_of_memory(*_: object) -> None:
            raise MemoryError

        with monkeypatch.context() as patch:
            patch.setattr(gallery._index.columns, step, out_of_memory)
            with pytest.raises(GalleryUnavailable, match="MemoryError"):
                writes[step]()
        assert not gallery.alive
        assert gallery.trouble is not None
        assert "MemoryError" in gallery.trouble
        with pytest.raises(GalleryUnavailable, match="restart"):
            gallery.query(vectors[:1], QueryOptions())
        with pytest.raises(GalleryUnavailable, match="restart"):
            gallery.page(Filters(), 10, None)
        with pytest.raises(GalleryUnavailable, match="restart"):
            gallery.enrol([new_crop(2, vectors[1])])
        assert gallery.known([crop_id(1)]) == (set() if step == "remove" else {crop_id(1)})
    with open_gallery(tmp_path) as gallery:
        assert gallery.trouble is None
        names = [match.identity for match in gallery.query(vectors[:1], QueryOptions()).matches]
        assert names == {"append": ["a", None], "relabel": ["b"], "remove": []}[step]
