"""The SQLite discipline: schema versions, damage, group commit, failing writes, order of publishing."""

from __future__ import annotations

import errno
import logging
import os
import shutil
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
from service.gallery.database import APPLICATION_ID, DATABASE_NAME, Database
from service.gallery.readonly import reading_beside
from service.gallery.records import (
    Filters,
    GalleryDamaged,
    GalleryFull,
    GalleryTooNew,
    GalleryUnavailable,
    Labels,
    NewCrop,
    QueryOptions,
)
from service.gallery.rows import CROP_COLUMNS, crop_of
from tests.service.gallery.cases import crop_id, new_crop, open_gallery, units, until

FIRST = ("CREATE TABLE numbers (n INTEGER PRIMARY KEY) STRICT",)
SECOND = ("ALTER TABLE numbers ADD COLUMN name TEXT", "UPDATE numbers SET name = 'n' || n")
FAMILY = (
    "CREATE TABLE parents (id INTEGER PRIMARY KEY) STRICT",
    "CREATE TABLE children (id INTEGER PRIMARY KEY REFERENCES parents (id) ON DELETE CASCADE) STRICT",
    "INSERT INTO parents VALUES (1), (2)",
    "INSERT INTO children VALUES (1), (2)",
)
REBUILT = (
    "CREATE TABLE new_parents (id INTEGER PRIMARY KEY, name TEXT) STRICT",
    "INSERT INTO new_parents (id) SELECT id FROM parents",
    "DROP TABLE parents",
    "ALTER TABLE new_parents RENAME TO parents",
)


def insert(database: Database, number: int) -> None:
    database.write(lambda connection: connection.execute("INSERT INTO numbers (n) VALUES (?)", (number,)))


def numbers(database: Database) -> list[int]:
    with database.reading() as connection:
        return [n for (n,) in connection.execute("SELECT n FROM numbers ORDER BY n").fetchall()]


def test_migrations_bring_an_old_file_up_to_date(tmp_path: Path) -> None:
    old = Database.open(tmp_path, [FIRST])
    insert(old, 1)
    old.close()
    new = Database.open(tmp_path, [FIRST, SECOND])
    with new.reading() as connection:
        assert connection.execute("SELECT n, name FROM numbers").fetchall() == [(1, "n1")]
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
    new.close()


def test_a_migration_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    old = Database.open(tmp_path, [FIRST])
    insert(old, 1)
    old.close()
    with pytest.raises(GalleryUnavailable, match="no such table"):
        Database.open(tmp_path, [FIRST, (*SECOND, "DELETE FROM no_table")])
    again = Database.open(tmp_path, [FIRST])
    assert numbers(again) == [1]
    again.close()


def children(database: Database) -> list[int]:
    with database.reading() as connection:
        return [n for (n,) in connection.execute("SELECT id FROM children ORDER BY id").fetchall()]


def test_a_migration_may_rebuild_a_table_that_others_refer_to(tmp_path: Path) -> None:
    Database.open(tmp_path, [FAMILY]).close()
    database = Database.open(tmp_path, [FAMILY, REBUILT])
    assert children(database) == [1, 2]
    database.write(lambda connection: connection.execute("DELETE FROM parents WHERE id = 1"))
    assert children(database) == [2]
    database.close()


def test_a_migration_that_leaves_orphans_is_undone(tmp_path: Path) -> None:
    Database.open(tmp_path, [FAMILY]).close()
    with pytest.raises(GalleryDamaged, match=r"schema version 2: .* missing"):
        Database.open(tmp_path, [FAMILY, ("DELETE FROM parents WHERE id = 2",)])
    again = Database.open(tmp_path, [FAMILY])
    with again.reading() as connection:
        assert connection.execute("SELECT count(*) FROM parents").fetchone() == (2,)
    assert children(again) == [1, 2]
    again.close()


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    Database.open(tmp_path, [FIRST, SECOND]).close()
    with pytest.raises(GalleryTooNew, match="schema version 2"):
        Database.open(tmp_path, [FIRST])
    open_folder = tmp_path / "real"
    open_gallery(open_folder).close()
    with sqlite3.connect(open_folder / DATABASE_NAME) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(GalleryTooNew, match="99"):
        open_gallery(open_folder)


def test_promises_are_switched_on(tmp_path: Path) -> None:
    database = Database.open(tmp_path, [FIRST])

    def pragmas(connection: sqlite3.Connection) -> list[object]:
        names = ("journal_mode", "synchronous", "secure_delete", "foreign_keys", "application_id")
        return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

    full = 2
    assert database.write(pragmas) == ["wal", full, 1, 1, APPLICATION_ID]
    with (
        pytest.raises(GalleryUnavailable, match="readonly"),
        database.reading() as connection,
    ):
        connection.execute("INSERT INTO numbers VALUES (1)")
    database.close()


@pytest.fixture(scope="module")
def whole_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    with open_gallery(folder) as gallery:
        vectors = units(np.random.default_rng(0), 400)
        gallery.enrol([new_crop(n, v, Labels("a")) for n, v in enumerate(vectors)])
    return folder / DATABASE_NAME


@pytest.mark.parametrize("share", [0.0, 0.0004, 0.02, 0.3, 0.5, 0.99])
def test_a_truncated_file_is_an_error_and_frees_the_folder(tmp_path: Path, whole_file: Path, share: float) -> None:
    data = whole_file.read_bytes()
    (tmp_path / DATABASE_NAME).write_bytes(data[: int(share * len(data))])
    with pytest.raises(GalleryDamaged, match=str(tmp_path)):
        open_gallery(tmp_path)
    shutil.copy(whole_file, tmp_path / DATABASE_NAME)
    with open_gallery(tmp_path) as gallery:
        assert gallery.crop_count == 400


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE crops SET meta = '{\"a'",
        "UPDATE crops SET captured_at = 9000000000000000000",
        "UPDATE crops SET meta = CAST(x'7B22FF' AS TEXT)",
        "PRAGMA writable_schema = 1; UPDATE sqlite_schema SET sql = CAST(x'FF' || sql AS TEXT) WHERE name = 'crops'",
    ],
)
def test_damage_to_what_is_stored_is_told_as_such(tmp_path: Path, damage: str) -> None:
    with open_gallery(tmp_path) as gallery:
        gallery.enrol([new_crop(1, units(np.random.default_rng(1), 1)[0], Labels(meta={"name": "anna"}))])
    with closing(sqlite3.connect(tmp_path / DATABASE_NAME)) as connection:
        connection.executescript(damage)
    with pytest.raises(GalleryDamaged, match=r"is damaged.*; restore a backup\.$"):
        _read_crops(tmp_path)


def _read_crops(folder: Path) -> None:
    with reading_beside(folder) as connection:
        for record in connection.execute(f"SELECT {CROP_COLUMNS} FROM crops"):
            crop_of(record)


def test_foreign_files_are_refused_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / DATABASE_NAME
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE other (a)")
    connection.close()
    foreign = path.read_bytes()
    with pytest.raises(GalleryDamaged, match="not a Resight gallery"):
        open_gallery(tmp_path)
    assert path.read_bytes() == foreign
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(GalleryDamaged):
        open_gallery(tmp_path)


def test_a_start_that_was_cut_short_is_no_obstacle(tmp_path: Path) -> None:
    for suffix in (".new", ".new-wal", ".new-shm"):
        (tmp_path / DATABASE_NAME).with_suffix(suffix).write_bytes(b"half")
    with open_gallery(tmp_path) as gallery:
        gallery.enrol([new_crop(1, units(np.random.default_rng(0), 1)[0])])
        assert gallery.get(crop_id(1))


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(GalleryUnavailable, match="cannot be used"):
        open_gallery(tmp_path / "file" / "gallery")


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


def test_a_disk_that_is_full_at_the_start_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("service.gallery.database._create", full)
    with pytest.raises(GalleryFull, match="the disk is full"):
        open_gallery(tmp_path)


def test_a_folder_that_may_not_be_written_is_named_as_people_name_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(GalleryUnavailable) as caught:
        open_gallery(tmp_path)
    assert str(caught.value) == f"The data folder {tmp_path} cannot be used: Permission denied."
