"""Full disks, folders that cannot be written or go away, files that are swapped or damaged, second processes."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from service.gallery.database import DATABASE_NAME
from service.gallery.folder import SNAPSHOT_NAME, SPARE_NAME
from service.gallery.gallery import Gallery
from service.gallery.records import (
    GalleryDamaged,
    GalleryFull,
    GalleryLocked,
    GalleryUnavailable,
    Labels,
    NewCrop,
    QueryOptions,
)
from tests.service.gallery.cases import crop_id, new_crop, open_gallery, units

ROOT = Path(__file__).parents[3]
VECTORS = units(np.random.default_rng(0), 40)
IN_OWN_MOUNTS = ("unshare", "--user", "--map-root-user", "--mount")
MOUNTED = """
mount -t tmpfs -o size=1536k tmpfs "$1" || exit 1
exec "$2" -c 'import sys; from pathlib import Path; from tests.service.gallery import test_faults
getattr(test_faults, sys.argv[1])(Path(sys.argv[2]))' "$3" "$1"
"""


def mounting_works() -> bool:
    try:
        return subprocess.run([*IN_OWN_MOUNTS, "true"], check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


needs_mounts = pytest.mark.skipif(not mounting_works(), reason="this user may not mount a small file system")


def on_a_small_disk(scenario: Callable[[Path], None], folder: Path) -> None:
    """Runs the scenario in a process that has a file system of 1.5 MiB at `folder`."""
    command = [*IN_OWN_MOUNTS, "sh", "-c", MOUNTED, "sh", str(folder), sys.executable, scenario.__name__]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def enrol(gallery: Gallery, *numbers: int) -> None:
    gallery.enrol([new_crop(n, VECTORS[n], Labels(f"p{n}")) for n in numbers])


def check_serves(gallery: Gallery, *numbers: int) -> None:
    """That it has just these crops, and finds them."""
    assert gallery.crop_count == len(numbers)
    for n in numbers:
        nearest = gallery.query(VECTORS[n : n + 1], QueryOptions()).matches[0]
        assert (nearest.crop.crop_id, nearest.distance) == (crop_id(n), 0.0)
        assert gallery.image(crop_id(n)) == b"jpeg %d" % n


def check_full(gallery: Gallery) -> None:
    """That nothing can be enrolled, in a sentence, and that this is no trouble to queries."""
    with pytest.raises(GalleryFull, match="the disk is full; free space"):
        gallery.enrol([NewCrop(crop_id(99), VECTORS[0], bytes(300_000))])
    assert gallery.trouble is None


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """Takes all the room that is left, for the time of the block."""
    ballast = folder / "ballast"
    with ballast.open("ab", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass
    yield
    ballast.unlink()


def disk_fills_while_serving(disk: Path) -> None:
    with open_gallery(disk) as gallery:
        enrol(gallery, 0, 1)
        with full(disk):
            check_full(gallery)
            check_serves(gallery, 0, 1)
        enrol(gallery, 2)
        check_serves(gallery, 0, 1, 2)
    with open_gallery(disk) as gallery:
        check_serves(gallery, 0, 1, 2)


def start_on_a_full_disk(disk: Path) -> None:
    with open_gallery(disk) as gallery:
        enrol(gallery, 0, 1)
    with full(disk):
        for _ in range(3):  # each leaves the next one what it needs
            with open_gallery(disk) as gallery:
                check_full(gallery)
                check_serves(gallery, 0, 1)
        with open_gallery(disk) as gallery:
            check_serves(gallery, 0, 1)
        gallery = open_gallery(disk)
    enrol(gallery, 2)  # without another start
    check_serves(gallery, 0, 1, 2)
    gallery.close()
    assert (disk / SPARE_NAME).exists()


def start_on_a_full_disk_after_a_kill(disk: Path) -> None:
    child = os.fork()
    if not child:
        gallery = open_gallery(disk)
        enrol(gallery, *range(40))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert (disk / f"{DATABASE_NAME}-wal").stat().st_size > 0
    with full(disk):
        with open_gallery(disk) as gallery:
            check_full(gallery)
            check_serves(gallery, *range(40))
        with open_gallery(disk) as gallery:
            check_serves(gallery, *range(40))
    with open_gallery(disk) as gallery:
        gallery.delete(crop_id(0))
        check_serves(gallery, *range(1, 40))


def start_in_a_read_only_folder(disk: Path) -> None:
    with open_gallery(disk) as gallery:
        enrol(gallery, 0)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(GalleryUnavailable, match=f"The data folder {disk} cannot be written; give this user the right"):
        open_gallery(disk)
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    with open_gallery(disk) as gallery:
        check_serves(gallery, 0)


@needs_mounts
@pytest.mark.parametrize(
    "scenario",
    [
        disk_fills_while_serving,
        start_on_a_full_disk,
        start_on_a_full_disk_after_a_kill,
        start_in_a_read_only_folder,
    ],
)
def test_on_a_small_disk(tmp_path: Path, scenario: Callable[[Path], None]) -> None:
    on_a_small_disk(scenario, tmp_path)


def test_a_second_process_is_refused_whatever_is_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with open_gallery(folder) as gallery:
        enrol(gallery, 0)
        for path in folder.iterdir():
            if not path.name.startswith(DATABASE_NAME):
                path.unlink()
        with pytest.raises(GalleryLocked, match="in use by another process"):
            open_gallery(folder)
        folder.rename(tmp_path / "moved")
        with pytest.raises(GalleryLocked):
            open_gallery(tmp_path / "moved")
    with open_gallery(tmp_path / "moved") as gallery:
        check_serves(gallery, 0)


def remove_folder(folder: Path) -> None:
    shutil.rmtree(folder)


def replace_folder(folder: Path) -> None:
    folder.rename(folder.with_name("old"))
    open_gallery(folder).close()


def replace_database(folder: Path) -> None:
    copy = folder / "copy"
    shutil.copy(folder / DATABASE_NAME, copy)
    copy.replace(folder / DATABASE_NAME)


def remove_log(folder: Path) -> None:
    (folder / f"{DATABASE_NAME}-wal").unlink()


@pytest.mark.parametrize("harm", [remove_folder, replace_folder, replace_database, remove_log])
def test_nothing_is_acknowledged_into_a_file_that_is_gone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, harm: Callable[[Path], None]
) -> None:
    folder = tmp_path / "data"
    with open_gallery(folder) as gallery:
        enrol(gallery, 0)
        harm(folder)
        assert gallery.trouble is not None  # before anything is written
        assert "restart the service" in gallery.trouble
        for _ in range(2):
            with pytest.raises(GalleryUnavailable, match="restart the service"):
                enrol(gallery, 1)
        assert gallery.crop_count == 1
        assert gallery.query(VECTORS[:1], QueryOptions()).searched == 1  # from memory
    assert "the gallery's writer died" in caplog.text
    with open_gallery(folder) as gallery:
        assert gallery.trouble is None


def test_a_folder_that_comes_back_in_time_is_no_trouble(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with open_gallery(folder) as gallery:
        folder.rename(tmp_path / "away")
        assert gallery.trouble is not None
        assert "is not there any more" in gallery.trouble
        (tmp_path / "away").rename(folder)
        assert gallery.trouble is None
        enrol(gallery, 0)
    with open_gallery(folder) as gallery:
        check_serves(gallery, 0)


def test_a_database_that_is_damaged_while_it_is_served_is_trouble(tmp_path: Path) -> None:
    with open_gallery(tmp_path) as gallery:
        enrol(gallery, *range(40))
        gallery._store.database.write(lambda connection: connection.execute("PRAGMA shrink_memory"))
    with open_gallery(tmp_path) as gallery:
        path = tmp_path / DATABASE_NAME
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(os.urandom(path.stat().st_size - 4096))
        assert gallery.trouble is None  # nobody has read it yet
        with pytest.raises(GalleryDamaged, match="restore a backup"):
            gallery.get(crop_id(39))
        assert gallery.trouble is not None
        assert "is damaged; stop the service and restore a backup" in gallery.trouble
        with pytest.raises(GalleryUnavailable, match=r"Nothing can be written: the database .* is damaged"):
            enrol(gallery, 1)
        assert gallery.query(VECTORS[:1], QueryOptions()).searched == 40


def test_one_damaged_vector_is_not_a_damaged_database(tmp_path: Path) -> None:
    with open_gallery(tmp_path) as gallery:
        enrol(gallery, 0, 1)
    with sqlite3.connect(tmp_path / DATABASE_NAME) as connection:
        (vector,) = connection.execute("SELECT vector FROM embeddings WHERE row = 1").fetchone()
        flipped = bytes([vector[0] ^ 1]) + vector[1:]
        connection.execute("UPDATE embeddings SET vector = ? WHERE row = 1", (flipped,))
    connection.close()
    with open_gallery(tmp_path) as gallery:  # from the snapshot, whose vector is sound
        check_serves(gallery, 0, 1)
        with pytest.raises(GalleryDamaged, match="enrol its picture again"):
            gallery.embeddings([crop_id(0)])
        assert gallery.trouble is None
    (tmp_path / SNAPSHOT_NAME).unlink()
    with open_gallery(tmp_path) as gallery:
        assert gallery.query(VECTORS[:1], QueryOptions()).searched == 1
        enrol(gallery, 0)
        check_serves(gallery, 0, 1)
        np.testing.assert_array_equal(gallery.embeddings([crop_id(0)]), VECTORS[:1].astype(np.float16))
