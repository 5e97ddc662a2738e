"""A file as the first release wrote it, statement by statement, opens; for later versions see `test_schema`."""

from __future__ import annotations

import sqlite3
import zlib
from contextlib import closing
from pathlib import Path

import numpy as np

from service.gallery.changes import to_micros
from service.gallery.database import DATABASE_NAME
from service.gallery.folder import SNAPSHOT_NAME
from service.gallery.records import Labels, QueryOptions
from service.gallery.schema import MIGRATIONS
from tests.service.gallery.cases import MODEL, START, crop_id, new_crop, open_gallery, units

FIRST_RELEASE = """
PRAGMA application_id = 1381189460;
PRAGMA journal_mode = WAL;
CREATE TABLE gallery (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    model_sha256 TEXT NOT NULL, model_name TEXT NOT NULL, dim INTEGER NOT NULL,
    created_at INTEGER NOT NULL) STRICT;
CREATE TABLE crops (
    row INTEGER PRIMARY KEY AUTOINCREMENT, crop_id TEXT NOT NULL UNIQUE,
    identity TEXT, camera TEXT, captured_at INTEGER, track TEXT, meta TEXT,
    enrolled_at INTEGER NOT NULL) STRICT;
CREATE TABLE embeddings (
    row INTEGER PRIMARY KEY REFERENCES crops (row) ON DELETE CASCADE,
    vector BLOB NOT NULL, crc32 INTEGER NOT NULL) STRICT;
CREATE TABLE pictures (
    row INTEGER PRIMARY KEY REFERENCES crops (row) ON DELETE CASCADE,
    jpeg BLOB NOT NULL) STRICT;
CREATE TABLE changes (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, row INTEGER NOT NULL,
    op TEXT NOT NULL CHECK (op IN ('enrol', 'relabel', 'replace', 'delete'))) STRICT;
PRAGMA user_version = 1;
"""
VECTORS = units(np.random.default_rng(0), 4)


def write_first_release(path: Path) -> None:
    """Three crops, of which the second was deleted: its row is a gap, its entries are in the log of changes."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(FIRST_RELEASE)
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("INSERT INTO gallery VALUES (1, ?, 'model-a', 16, 0)", (MODEL,))
        for row in (1, 2, 3):
            connection.execute(
                "INSERT INTO crops VALUES (?, ?, ?, 'c1', ?, 't', '{\"floor\": 2}', ?)",
                (row, crop_id(row), None if row == 3 else "anna", to_micros(START), row),
            )
            vector = VECTORS[row].astype("<f2").tobytes()
            connection.execute("INSERT INTO embeddings VALUES (?, ?, ?)", (row, vector, zlib.crc32(vector)))
            connection.execute("INSERT INTO pictures VALUES (?, ?)", (row, b"jpeg %d" % row))
            connection.execute("INSERT INTO changes (row, op) VALUES (?, 'enrol')", (row,))
        connection.execute("DELETE FROM crops WHERE row = 2")
        connection.execute("INSERT INTO changes (row, op) VALUES (2, 'delete')")


def test_a_gallery_of_the_first_release_opens(tmp_path: Path) -> None:
    write_first_release(tmp_path / DATABASE_NAME)
    for _ in range(2):  # from the database, then from the snapshot that the first end leaves
        with open_gallery(tmp_path) as gallery:
            assert (gallery.crop_count, gallery.identity_count) == (2, 1)
            crop = gallery.get(crop_id(1))
            assert (crop.identity, crop.camera, crop.captured_at, crop.track) == ("anna", "c1", START, "t")
            assert (crop.meta, gallery.image(crop_id(3))) == ({"floor": 2}, b"jpeg 3")
            nearest = gallery.query(VECTORS[3:], QueryOptions()).matches[0]
            assert (nearest.identity, nearest.crop.crop_id, nearest.distance) == (None, crop_id(3), 0.0)
        assert (tmp_path / SNAPSHOT_NAME).exists()
    with open_gallery(tmp_path) as gallery:
        gallery.enrol([new_crop(4, VECTORS[0], Labels("bea"))])
        gallery.delete(crop_id(1))
        assert (gallery.crop_count, gallery.identity_count) == (2, 1)
    with closing(sqlite3.connect(tmp_path / DATABASE_NAME)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT row FROM crops ORDER BY row").fetchall() == [(3,), (4,)]
