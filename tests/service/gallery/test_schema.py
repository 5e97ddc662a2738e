"""A gallery that an earlier release wrote opens, with everything in it."""

from __future__ import annotations

import sqlite3
import zlib
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from service.gallery.changes import to_micros
from service.gallery.database import Database
from service.gallery.identities import Correction
from service.gallery.records import Filters, Labels, QueryOptions
from service.gallery.schema import MIGRATIONS
from tests.service.gallery.cases import MODEL, START, crop_id, new_crop, open_gallery, units

VECTORS = units(np.random.default_rng(0), 3)


def execute(statement: str, values: tuple[object, ...], connection: sqlite3.Connection) -> None:
    connection.execute(statement, values)


def write_first_version(folder: Path, version: int) -> None:
    """A gallery of two crops, in what every version has had, by a release that knew versions up to `version`."""
    database = Database.open(folder, MIGRATIONS[:version])
    now = to_micros(datetime.now(UTC))
    with database.reading() as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (version,)
    columns = "(id, model_sha256, model_name, dim, created_at)"
    gallery = (1, MODEL, "model-a", VECTORS.shape[1], now)
    database.write(partial(execute, f"INSERT INTO gallery {columns} VALUES (?, ?, ?, ?, ?)", gallery))
    labels = "(row, crop_id, identity, camera, captured_at, track, meta, enrolled_at)"
    for row, vector in enumerate(VECTORS[:2], start=1):
        blob = vector.astype("<f2").tobytes()
        crop = (row, crop_id(row), "anna", "c1", to_micros(START), "t", '{"floor": 2}', now)
        database.write(partial(execute, f"INSERT INTO crops {labels} VALUES (?, ?, ?, ?, ?, ?, ?, ?)", crop))
        database.write(partial(execute, "INSERT INTO embeddings VALUES (?, ?, ?)", (row, blob, zlib.crc32(blob))))
        database.write(partial(execute, "INSERT INTO pictures VALUES (?, ?)", (row, b"jpeg %d" % row)))
        database.write(partial(execute, "INSERT INTO changes (row, op) VALUES (?, 'enrol')", (row,)))
    database.close()


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS) + 1))
def test_every_earlier_version_opens_with_everything_in_it(tmp_path: Path, version: int) -> None:
    write_first_version(tmp_path, version)
    for _ in range(2):  # the second time, nothing is left to migrate
        with open_gallery(tmp_path) as gallery:
            assert [crop.crop_id for crop in gallery.page(Filters(), 10, None).crops] == [crop_id(1), crop_id(2)]
            crop = gallery.get(crop_id(1))
            assert (crop.identity, crop.camera, crop.captured_at, crop.track) == ("anna", "c1", START, "t")
            assert (crop.meta, crop.not_identity, gallery.image(crop_id(2))) == ({"floor": 2}, (), b"jpeg 2")
            (match,) = gallery.query(VECTORS[:1], QueryOptions()).matches
            assert (match.identity, match.distance, len(match.crops)) == ("anna", 0.0, 2)
            assert gallery.identities.get("anna").crops == 2


def test_a_migrated_gallery_does_what_a_new_one_does(tmp_path: Path) -> None:
    write_first_version(tmp_path, 1)
    with open_gallery(tmp_path) as gallery:
        gallery.enrol([new_crop(3, VECTORS[2], Labels("bea"))])
        gallery.identities.correct(crop_id(1), Correction(not_identity=frozenset({"anna"})))
        assert gallery.identities.rename("anna", "bea").merged
        assert gallery.get(crop_id(1)).not_identity == ("bea",)
        gallery.delete(crop_id(1))
        assert gallery.identities.get("bea").crops == gallery.crop_count == 2
