"""Compacting gives room back and changes nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from service.gallery.database import DATABASE_NAME
from service.gallery.records import GalleryLocked, GalleryUnavailable, Labels, NewCrop, QueryOptions
from service.jobs.compact import compact
from tests.service.gallery.cases import crop_id, open_gallery, units

CROPS = 300


def test_erased_crops_give_their_room_back(tmp_path: Path) -> None:
    vectors = units(np.random.default_rng(0), CROPS)
    with open_gallery(tmp_path) as gallery:
        gallery.enrol([NewCrop(crop_id(n), vector, bytes(2000), Labels(f"p{n}")) for n, vector in enumerate(vectors)])
        for number in range(CROPS - 20):
            gallery.delete(crop_id(number))
        kept = [crop_id(number) for number in range(CROPS - 20, CROPS)]
        crops, answer = [gallery.get(one) for one in kept], gallery.query(vectors[-1:], QueryOptions())
        with pytest.raises(GalleryLocked):
            compact(tmp_path)
    done = compact(tmp_path)
    assert done.after < done.before / 4
    assert done.after == (tmp_path / DATABASE_NAME).stat().st_size
    with open_gallery(tmp_path) as gallery:
        assert [gallery.get(one) for one in kept] == crops
        assert gallery.query(vectors[-1:], QueryOptions()) == answer
        gallery.enrol([NewCrop(crop_id(0), vectors[0])])


def test_bytes_of_a_label_that_was_changed_are_gone(tmp_path: Path) -> None:
    vectors = units(np.random.default_rng(0), 50)
    secret = b"formersecretname"
    with open_gallery(tmp_path) as gallery:
        for n, vector in enumerate(vectors):
            gallery.enrol([NewCrop(crop_id(n), vector, None, Labels(secret.decode()))])
        for n in range(50):
            gallery.enrol([NewCrop(crop_id(n), None, None, Labels(f"p{n}"))])
    compact(tmp_path)
    assert secret not in (tmp_path / DATABASE_NAME).read_bytes()


def test_no_copy_of_the_pictures_leaves_the_data_folder(tmp_path: Path) -> None:
    """SQLite removes the name of a temporary file at once, but where it was made its folder has another time."""
    folder, elsewhere = tmp_path / "it's data", tmp_path / "elsewhere"
    elsewhere.mkdir()
    with open_gallery(folder) as gallery:
        vectors = units(np.random.default_rng(0), CROPS)
        gallery.enrol([NewCrop(crop_id(n), vector, bytes(20_000)) for n, vector in enumerate(vectors)])
    os.utime(elsewhere, (0, 0))
    program = "import sys, pathlib; from service.jobs.compact import compact; compact(pathlib.Path(sys.argv[1]))"
    environment = {**os.environ, "SQLITE_TMPDIR": str(elsewhere)}  # which SQLite reads once, when it is loaded
    subprocess.run([sys.executable, "-c", program, folder], env=environment, check=True, timeout=60)
    assert elsewhere.stat().st_mtime == 0


def test_where_there_is_no_gallery_there_is_none_afterwards(tmp_path: Path) -> None:
    with pytest.raises(GalleryUnavailable, match="There is no gallery"):
        compact(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []
