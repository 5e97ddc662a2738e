"""The SQLite file: schema versions, damage, foreign files, and disks that are full or closed at the start."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from service.gallery.database import APPLICATION_ID, DATABASE_NAME, Database
from service.gallery.readonly import reading_beside
from service.gallery.records import (
    GalleryDamaged,
    GalleryFull,
    GalleryTooNew,
    GalleryUnavailable,
    Labels,
)
from service.gallery.rows import CROP_COLUMNS, crop_of
from tests.service.gallery.cases import crop_id, new_crop, open_gallery, units
from tests.service.gallery.numbered import FIRST, insert, numbers

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
