"""A backup is whole or absent, taken beside a running service, and only a whole one is restored."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from service.gallery.database import DATABASE_NAME
from service.gallery.gallery import Gallery
from service.gallery.records import (
    GalleryDamaged,
    GalleryLocked,
    GalleryTooNew,
    GalleryUnavailable,
    Labels,
    QueryOptions,
)
from service.gallery.schema import MIGRATIONS
from service.jobs import manifest as manifest_module
from service.jobs.backup import back_up
from service.jobs.job import JobError
from service.jobs.manifest import MANIFEST_NAME, Counts, read_manifest
from service.jobs.restore import restore
from tests.service.gallery.cases import MODEL, crop_id, new_crop, open_gallery, units

ROOT = Path(__file__).parents[3]
DIM = 16


def fill(gallery: Gallery, count: int, first: int = 0) -> None:
    vectors = units(np.random.default_rng(first), count, DIM)
    gallery.enrol([new_crop(first + n, vector, Labels(f"p{(first + n) % 5}")) for n, vector in enumerate(vectors)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A gallery of 40 crops that nobody has open."""
    with open_gallery(tmp_path / "data") as gallery:
        fill(gallery, 40)
    return tmp_path / "data"


@pytest.fixture
def backup(folder: Path, tmp_path: Path) -> Path:
    back_up(folder, tmp_path / "backup")
    return tmp_path / "backup"


def test_a_restored_backup_is_the_gallery(folder: Path, backup: Path, tmp_path: Path) -> None:
    restore(backup, tmp_path / "restored")
    with open_gallery(folder) as was, open_gallery(tmp_path / "restored") as now:
        ids = [crop_id(n) for n in range(40)]
        assert [now.get(one) for one in ids] == [was.get(one) for one in ids]
        assert [now.image(one) for one in ids] == [was.image(one) for one in ids]
        assert np.array_equal(now.embeddings(ids), was.embeddings(ids))
        probe = units(np.random.default_rng(9), 1)
        assert now.query(probe, QueryOptions()) == was.query(probe, QueryOptions())
        fill(now, 3, first=100)
        assert now.crop_count == 43


def test_the_manifest_tells_what_is_in_it(backup: Path) -> None:
    manifest = read_manifest(backup)
    assert manifest.counts == Counts(crops=40, identities=5, pictures=40)
    assert manifest.model is not None
    assert (manifest.model.sha256, manifest.model.dim) == (MODEL, DIM)
    assert manifest.schema_version == len(MIGRATIONS)
    content = (backup / DATABASE_NAME).read_bytes()
    assert (manifest.database.bytes, manifest.database.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert sorted(path.name for path in backup.iterdir()) == [DATABASE_NAME, MANIFEST_NAME]
    assert [path.stat().st_mode & 0o077 for path in (backup, *backup.iterdir())] == [0, 0, 0]


def test_a_backup_of_a_busy_gallery_is_the_state_of_one_moment(tmp_path: Path) -> None:
    with open_gallery(tmp_path / "data") as gallery:
        for number in range(0, 400, 40):
            fill(gallery, 40, number)
        stop = threading.Event()

        def write() -> None:  # in pairs: half of one in a backup would be half of a write
            number = 1000
            while not stop.is_set():
                fill(gallery, 2, number)
                gallery.delete(crop_id(number - 1000))
                number += 2

        writer = threading.Thread(target=write)
        writer.start()
        try:
            manifests = [back_up(tmp_path / "data", tmp_path / f"backup{n}") for n in range(3)]
        finally:
            stop.set()
            writer.join()
        written = gallery.crop_count
    assert written >= manifests[0].counts.crops - 1  # which may lie between an enrolment and the erasure behind it
    for number, manifest in enumerate(manifests):
        restore(tmp_path / f"backup{number}", tmp_path / f"restored{number}")
        with open_gallery(tmp_path / f"restored{number}") as restored:
            assert restored.crop_count == manifest.counts.crops
            with closing(sqlite3.connect(tmp_path / f"restored{number}" / DATABASE_NAME)) as connection:
                late = connection.execute("SELECT count(*) FROM crops WHERE crop_id >= ?", (crop_id(1000),)).fetchone()
                assert late[0] % 2 == 0
                assert connection.execute("SELECT count(*) FROM embeddings").fetchone() == (restored.crop_count,)


def test_a_backup_writes_nothing_into_the_gallery(folder: Path, tmp_path: Path) -> None:
    with open_gallery(folder) as gallery:
        fill(gallery, 1, first=50)
        before = {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith("-shm")}
        back_up(folder, tmp_path / "backup")
        after = {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith("-shm")}
    assert after == before


@pytest.mark.parametrize("part", [DATABASE_NAME, MANIFEST_NAME])
@pytest.mark.parametrize("damage", ["bit", "end", "gone"])
def test_a_damaged_backup_is_not_restored(backup: Path, tmp_path: Path, part: str, damage: str) -> None:
    content = (backup / part).read_bytes()
    match damage:
        case "bit":
            changed = bytearray(content)
            changed[len(content) // 2] ^= 1
            (backup / part).write_bytes(changed)
        case "end":
            (backup / part).write_bytes(content[:-3])
        case "gone":
            (backup / part).unlink()
    with pytest.raises(JobError, match=r"damaged|not whole|not a whole backup"):
        restore(backup, tmp_path / "restored")
    assert not list((tmp_path / "restored").glob("*"))


def test_no_flipped_bit_of_the_manifest_passes(backup: Path) -> None:
    path = backup / MANIFEST_NAME
    content = path.read_bytes()
    for place in range(0, 8 * len(content), 7):  # every byte, and in each another bit than in the one before
        changed = bytearray(content)
        changed[place // 8] ^= 1 << place % 8
        if changed.split() == content.split():
            continue  # white space that became other white space
        path.write_bytes(changed)
        with pytest.raises(JobError, match=r"damaged|this release knows"):
            read_manifest(backup)


def test_a_backup_of_a_newer_release_is_refused(backup: Path, tmp_path: Path) -> None:
    fields = json.loads((backup / MANIFEST_NAME).read_text())
    del fields["checksum"]
    fields["schema_version"] = 99
    fields["checksum"] = manifest_module._checksum(fields)
    (backup / MANIFEST_NAME).write_text(json.dumps(fields))
    with pytest.raises(GalleryTooNew, match="schema version 99"):
        restore(backup, tmp_path / "restored")


def test_a_restore_replaces_nothing(backup: Path, tmp_path: Path) -> None:
    occupied = tmp_path / "occupied"
    occupied.mkdir()
    (occupied / "notes.txt").write_text("mine")
    with pytest.raises(JobError, match=r"is not empty \(it has notes.txt\)"):
        restore(backup, occupied)
    assert [path.name for path in occupied.iterdir()] == ["notes.txt"]
    with open_gallery(tmp_path / "served"), pytest.raises(GalleryLocked):
        restore(backup, tmp_path / "served")
    with pytest.raises(JobError, match="not empty"):
        restore(backup, tmp_path / "served")


def test_a_backup_replaces_nothing(folder: Path, backup: Path, tmp_path: Path) -> None:
    before = (backup / MANIFEST_NAME).read_bytes()
    with pytest.raises(JobError, match="exists already"):
        back_up(folder, backup)
    assert (backup / MANIFEST_NAME).read_bytes() == before
    (tmp_path / "empty").mkdir()
    back_up(folder, tmp_path / "empty")
    assert read_manifest(tmp_path / "empty").counts.crops == 40


KILLED = """
import os, signal, sys
from pathlib import Path
from service.jobs import {module} as job

def die(done, total):
    if done == total:
        os.kill(os.getpid(), signal.SIGKILL)

job.{function}(Path(sys.argv[1]), Path(sys.argv[2]), die)
"""


def killed(module: str, function: str, source: Path, target: Path) -> None:
    code = KILLED.format(module=module, function=function)
    ended = subprocess.run([sys.executable, "-c", code, source, target], cwd=ROOT, check=False, capture_output=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr


def test_a_killed_backup_leaves_none_and_the_next_one_clears_up(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "backups" / "today"
    killed("backup", "back_up", folder, target)
    assert [path.name for path in target.parent.iterdir()] == ["today.unfinished"]
    back_up(folder, target)
    assert [path.name for path in target.parent.iterdir()] == ["today"]
    assert read_manifest(target).counts.crops == 40


def test_a_killed_restore_leaves_no_gallery_and_starts_again(backup: Path, tmp_path: Path) -> None:
    target = tmp_path / "restored"
    killed("restore", "restore", backup, target)
    assert [path.name for path in target.iterdir()] == ["restore.unfinished"]
    restore(backup, target)
    assert [path.name for path in target.iterdir()] == [DATABASE_NAME]


def test_two_backups_to_one_place(folder: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "backup.unfinished"
    scratch.mkdir()
    descriptor = os.open(scratch, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(JobError, match="under way"):
            back_up(folder, tmp_path / "backup")
    finally:
        os.close(descriptor)
    back_up(folder, tmp_path / "backup")


def test_a_damaged_gallery_is_not_backed_up(folder: Path, tmp_path: Path) -> None:
    path = folder / DATABASE_NAME
    with path.open("r+b") as file:
        file.seek(3 * 4096)
        file.write(bytes(4096))
    with pytest.raises(GalleryDamaged, match="damaged"):
        back_up(folder, tmp_path / "backup")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["data"]


def test_what_is_no_gallery_is_not_backed_up(tmp_path: Path) -> None:
    with pytest.raises(GalleryUnavailable, match="There is no gallery in"):
        back_up(tmp_path / "nowhere", tmp_path / "backup")
    with closing(sqlite3.connect(tmp_path / DATABASE_NAME)) as connection:
        connection.execute("CREATE TABLE other (x)")
    with pytest.raises(GalleryDamaged, match="not a Resight gallery"):
        back_up(tmp_path, tmp_path / "backup")
    assert not (tmp_path / "backup").exists()


def test_a_full_disk_leaves_no_backup(folder: Path, tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys; from pathlib import Path; from service.jobs.backup import back_up\n"
        "from service.jobs.job import JobError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (40000, 40000))\n"
        "try: back_up(Path(sys.argv[1]), Path(sys.argv[2]))\nexcept JobError as error: print(error)"
    )
    command = [sys.executable, "-c", code, str(folder), str(tmp_path / "backup")]
    ended = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert ended.stdout.startswith("The backup cannot be written to ")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
