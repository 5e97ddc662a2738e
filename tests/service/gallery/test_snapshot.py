"""The snapshot of the index: it changes no answer, whatever becomes of it, and keeps nothing that was erased."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.gallery import recovery
from service.gallery.database import DATABASE_NAME
from service.gallery.erasures import Selection
from service.gallery.folder import SNAPSHOT_NAME, UNFINISHED_SNAPSHOT_NAME
from service.gallery.gallery import Gallery
from service.gallery.identities import Correction
from service.gallery.records import Answer, Filters, GalleryUnavailable, Labels, Page, QueryOptions
from service.gallery.recovery import SnapshotKeeper
from tests.service.gallery.cases import DAMAGE, crop_id, new_crop, open_gallery, random_labels, units, until

LOADED = "the index was loaded from its snapshot"
COUNT = 60


@pytest.fixture(autouse=True)
def _log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "service.gallery")


def fill(gallery: Gallery, first: int = 0, count: int = COUNT) -> None:
    rng = np.random.default_rng(first)
    vectors = units(rng, count)
    gallery.enrol([new_crop(first + n, v, random_labels(rng, 8)) for n, v in enumerate(vectors)])


def answers(gallery: Gallery) -> list[Answer | Page]:
    """What a gallery says to many questions."""
    probes = units(np.random.default_rng(99), 4)
    filters = [Filters(), Filters(cameras=frozenset({"c1"})), Filters(identities=frozenset({"p2", "p3"}))]
    asked: list[Answer | Page] = [
        gallery.query(probe[np.newaxis], QueryOptions(100, 100, chosen)) for probe in probes for chosen in filters
    ]
    return [*asked, *(gallery.page(chosen, 1000, None) for chosen in filters)]


def was_loaded(caplog: pytest.LogCaptureFixture) -> bool:
    loaded = LOADED in caplog.messages
    caplog.clear()
    return loaded


def killed(folder: Path, copy: Path) -> Path:
    """The folder as a kill at this moment would leave it."""
    return Path(shutil.copytree(folder, copy))


def rebuilt(folder: Path, copy: Path) -> list[Answer | Page]:
    """What a gallery of the same database says that is built from that alone."""
    killed(folder, copy)
    (copy / SNAPSHOT_NAME).unlink(missing_ok=True)
    with open_gallery(copy) as gallery:
        return answers(gallery)


def changes(folder: Path) -> int:
    with closing(sqlite3.connect(folder / DATABASE_NAME)) as connection:
        count: int = connection.execute("SELECT count(*) FROM changes").fetchone()[0]
    return count


def traces(folder: Path, *what: bytes) -> list[str]:
    return [path.name for path in folder.iterdir() if any(trace in path.read_bytes() for trace in what)]


def test_a_gallery_comes_back_from_its_snapshot(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "data"
    with open_gallery(folder) as gallery:
        fill(gallery)
        gallery.delete(crop_id(7))
        gallery.identities.rename("p1", "p2")
        said = answers(gallery)
    assert not was_loaded(caplog)
    assert changes(folder) == 0  # the snapshot has them all
    assert (folder / SNAPSHOT_NAME).stat().st_mode & 0o777 == 0o600
    expected = rebuilt(folder, tmp_path / "rebuilt")
    assert not was_loaded(caplog)
    with open_gallery(folder) as gallery:
        assert was_loaded(caplog)
        assert answers(gallery) == expected == said
        assert (gallery.crop_count, gallery.identity_count) == (COUNT - 1, 7)
        fill(gallery, COUNT, 5)
        gallery.delete(crop_id(COUNT))
        said = answers(gallery)
    with open_gallery(folder) as gallery:
        assert was_loaded(caplog)
        assert answers(gallery) == said


def test_what_was_changed_since_is_caught_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "data"
    with open_gallery(folder) as gallery:
        fill(gallery)
    with open_gallery(folder) as gallery:
        caplog.clear()
        fill(gallery, COUNT, 10)
        gallery.identities.rename("p1", "p2")
        gallery.identities.correct(crop_id(COUNT + 1), Correction(Labels("new"), frozenset({"identity"})))
        said = answers(gallery)
        copy = killed(folder, tmp_path / "killed")
    for _ in range(2):  # the second time without the first one's end
        with open_gallery(copy) as gallery:
            assert was_loaded(caplog)
            assert answers(gallery) == said
            copy = killed(copy, tmp_path / "again") if copy.name == "killed" else copy


def test_a_vector_that_was_replaced_since_is_caught_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "data"
    vectors = units(np.random.default_rng(3), 2)
    with open_gallery(folder) as gallery:
        gallery.enrol([new_crop(n, v) for n, v in enumerate(vectors)])
    (folder / SNAPSHOT_NAME).unlink()
    with closing(sqlite3.connect(folder / DATABASE_NAME)) as connection, connection:
        connection.execute("UPDATE embeddings SET vector = zeroblob(32) WHERE row = 2")
    with open_gallery(folder) as gallery:
        gallery.enrol([new_crop(2, vectors[0])])
    caplog.clear()
    with open_gallery(folder) as gallery:
        assert was_loaded(caplog)
        assert gallery.query(vectors[1:], QueryOptions()).searched == 2  # the snapshot, too, knows what is damaged
        gallery.enrol([new_crop(1, vectors[1])])
        copy = killed(folder, tmp_path / "killed")
    with open_gallery(copy) as gallery:
        assert was_loaded(caplog)
        answer = gallery.query(vectors[1:], QueryOptions())
        assert (answer.searched, answer.matches[0].crop.crop_id, answer.matches[0].distance) == (3, crop_id(1), 0.0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "data"
    with open_gallery(folder) as gallery:
        fill(gallery)
    return folder


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_snapshot_is_no_obstacle(
    tmp_path: Path, whole: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    folder = killed(whole, tmp_path / "data")
    expected = rebuilt(folder, tmp_path / "rebuilt")
    caplog.clear()
    DAMAGE[kind](folder / SNAPSHOT_NAME)
    with open_gallery(folder) as gallery:
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "is of no use" in caplog.messages[0]
        assert not (folder / SNAPSHOT_NAME).exists()
        assert answers(gallery) == expected
    caplog.clear()
    with open_gallery(folder) as gallery:
        assert was_loaded(caplog)  # it was written anew
        assert answers(gallery) == expected


def refused(folder: Path, caplog: pytest.LogCaptureFixture, model: str = "a" * 64) -> Gallery:
    caplog.clear()
    gallery = open_gallery(folder, model=model)
    assert "not the last one of this database" in caplog.text
    return gallery


def test_a_snapshot_that_is_newer_than_the_database_is_refused(
    tmp_path: Path, whole: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = killed(whole, tmp_path / "data")
    with open_gallery(folder) as gallery:
        fill(gallery, COUNT, 3)
    shutil.copy(whole / DATABASE_NAME, folder)  # a backup, put back by hand
    with refused(folder, caplog) as gallery:
        assert gallery.crop_count == COUNT


def test_a_snapshot_of_another_history_is_refused(
    tmp_path: Path, whole: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = killed(whole, tmp_path / "one"), killed(whole, tmp_path / "other")
    with open_gallery(one) as gallery:
        fill(gallery, COUNT, 3)
    with open_gallery(other) as gallery:
        fill(gallery, COUNT + 3, 3)
    shutil.copy(one / SNAPSHOT_NAME, other)  # with the same number of changes and crops
    with refused(other, caplog) as gallery:
        assert gallery.get(crop_id(COUNT + 3))
        assert gallery.page(Filters(), 1000, None).crops[-1].crop_id == crop_id(COUNT + 5)


def test_a_snapshot_of_another_model_is_refused(tmp_path: Path, whole: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = killed(whole, tmp_path / "data")
    with closing(sqlite3.connect(folder / DATABASE_NAME)) as connection, connection:
        connection.execute("UPDATE gallery SET model_sha256 = ?", ("b" * 64,))
    with refused(folder, caplog, "b" * 64) as gallery:
        assert gallery.crop_count == COUNT


def test_an_erasure_leaves_no_snapshot(tmp_path: Path) -> None:
    vectors = units(np.random.default_rng(5), 3)
    stored = [np.float16(v).tobytes() for v in vectors]
    with open_gallery(tmp_path) as gallery:
        gallery.enrol([new_crop(n, v, Labels(f"name-{n}")) for n, v in enumerate(vectors)])
    assert SNAPSHOT_NAME in traces(tmp_path, stored[1])
    assert SNAPSHOT_NAME in traces(tmp_path, b"name-1")
    with open_gallery(tmp_path) as gallery:
        gallery.delete(crop_id(1))
        assert traces(tmp_path, stored[1], b"name-1", crop_id(1).encode()) == []
    assert SNAPSHOT_NAME in traces(tmp_path, stored[0])
    assert traces(tmp_path, stored[1], b"name-1", crop_id(1).encode()) == []
    with open_gallery(tmp_path) as gallery:  # and it is put away by a start, too, if a crash has kept it
        old = (tmp_path / SNAPSHOT_NAME).read_bytes()
        gallery.delete(crop_id(2))
        copy = killed(tmp_path, tmp_path / "killed")
        (copy / SNAPSHOT_NAME).write_bytes(old)
    with open_gallery(copy) as gallery:
        assert traces(copy, stored[2], b"name-2") == []
        assert gallery.query(vectors[2:], QueryOptions()).searched == 1


def test_an_erasure_that_cannot_remove_the_snapshot_erases_nothing(tmp_path: Path, whole: Path) -> None:
    folder = killed(whole, tmp_path / "data")
    with open_gallery(folder) as gallery:
        (folder / SNAPSHOT_NAME).unlink()
        (folder / SNAPSHOT_NAME).mkdir()
        with pytest.raises(GalleryUnavailable, match="nothing was erased"):
            gallery.delete(crop_id(1))
        assert gallery.get(crop_id(1))
        assert gallery.crop_count == COUNT
        (folder / SNAPSHOT_NAME).rmdir()
        gallery.delete(crop_id(1))
        assert gallery.crop_count == COUNT - 1


def amid_writing(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Has `act` happen when a snapshot is half written."""
    original = SnapshotKeeper._vectors
    monkeypatch.setattr(recovery, "WRITE_VECTORS", 16)

    def vectors(keeper: SnapshotKeeper, *rest: object) -> Iterator[NDArray[np.float16]]:
        for number, part in enumerate(original(keeper, *rest)):  # type: ignore[arg-type]
            if number == 2:
                act()
            yield part

    monkeypatch.setattr(SnapshotKeeper, "_vectors", vectors)


def test_writes_go_on_while_a_snapshot_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "data"
    with open_gallery(folder) as gallery:
        fill(gallery)

        def change() -> None:
            fill(gallery, COUNT, 40)
            gallery.identities.rename("p1", "p2")

        with monkeypatch.context() as patch:
            amid_writing(patch, change)
            assert gallery._snapshots.write()
        said = answers(gallery)
        copy = killed(folder, tmp_path / "killed")
    assert changes(copy) > 40
    caplog.clear()
    with open_gallery(copy) as gallery:
        assert was_loaded(caplog)
        assert answers(gallery) == said


def test_an_erasure_stops_the_snapshot_that_is_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with open_gallery(tmp_path) as gallery:
        fill(gallery)
        with monkeypatch.context() as patch:
            amid_writing(patch, lambda: gallery.delete(crop_id(50)))
            assert not gallery._snapshots.write()
        assert "crops were erased meanwhile" in caplog.text
        assert not list(tmp_path.glob("*.snapshot*"))
        assert gallery._snapshots.write()
        assert gallery.crop_count == COUNT - 1


def test_an_erasure_after_the_last_byte_stops_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_gallery(tmp_path) as gallery:
        fill(gallery)
        fill_file = SnapshotKeeper._fill

        def fill_and_erase(keeper: SnapshotKeeper, *rest: object) -> None:
            fill_file(keeper, *rest)  # type: ignore[arg-type]
            gallery.delete(crop_id(50))

        with monkeypatch.context() as patch:
            patch.setattr(SnapshotKeeper, "_fill", fill_and_erase)
            assert not gallery._snapshots.write()
        assert not list(tmp_path.glob("*.snapshot*"))


def in_one_commit(gallery: Gallery, *acts: Callable[[], object]) -> list[Any]:
    """What acts return whose writes share one commit, in this order; each ends with its first write."""
    writer = gallery._store.database._writer
    held, go = threading.Event(), threading.Event()

    def hold(_: object) -> None:
        held.set()
        go.wait(10)

    with ThreadPoolExecutor() as pool:
        pool.submit(gallery._store.database.write, hold)
        held.wait(10)
        asked = []
        for number, act in enumerate(acts, 1):
            asked.append(pool.submit(act))
            until(lambda waiting=number: writer._waiting.qsize() == waiting)  # type: ignore[misc]
        go.set()
        return [one.result() for one in asked]


@pytest.mark.parametrize("erased_first", [False, True])
def test_an_erasure_in_the_same_commit_stops_the_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, erased_first: bool
) -> None:
    monkeypatch.setattr("service.gallery.index.COMPACT_MINIMUM", 1)  # its vectors' places are others' afterwards
    folder = tmp_path / "data"
    with open_gallery(folder) as gallery:
        fill(gallery)
        gone = Selection(crop_ids=frozenset(crop_id(n) for n in range(20)))
        acts: list[Callable[[], object]] = [gallery._snapshots.write, lambda: gallery.erasures.erase(gone)]
        said = in_one_commit(gallery, *(reversed(acts) if erased_first else acts), lambda: fill(gallery, COUNT, 20))
        assert said[1 if erased_first else 0] is False
        assert "crops were erased meanwhile" in caplog.text
        assert not list(folder.glob("*.snapshot*"))
        expected = answers(gallery)
        copy = killed(folder, tmp_path / "killed")
        assert gallery._snapshots.write()
    for there in (copy, folder):
        with open_gallery(there) as gallery:
            assert answers(gallery) == expected


def test_a_snapshot_of_the_format_that_could_hold_what_was_erased_is_made_anew(
    tmp_path: Path, whole: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = killed(whole, tmp_path / "data")
    path = folder / SNAPSHOT_NAME
    path.write_bytes(path.read_bytes()[:-8] + b"RSGTIX01")
    with open_gallery(folder):
        assert "no format that this release knows" in caplog.text
        assert not path.exists()
    assert path.read_bytes().endswith(b"RSGTIX02")


def test_a_snapshot_that_fails_in_an_unknown_way_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with open_gallery(tmp_path) as gallery:
        fill(gallery)
        with monkeypatch.context() as patch:
            patch.setattr("service.gallery.index.Index.stored", lambda *_: [][0])
            assert not gallery._snapshots.write()
        assert "no snapshot of the index was written" in caplog.messages
        assert not list(tmp_path.glob("*.snapshot*"))


def test_an_end_that_fails_frees_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = open_gallery(tmp_path)
    fill(gallery)
    with monkeypatch.context() as patch:
        patch.setattr(SnapshotKeeper, "close", lambda _: [][0])
        with pytest.raises(IndexError):
            gallery.close()
    gallery._snapshots._watch.close()
    with open_gallery(tmp_path) as again:
        assert again.crop_count == COUNT


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_snapshot_that_cannot_be_written_is_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    folder = tmp_path / "data"
    with open_gallery(folder) as gallery:
        fill(gallery)
    with open_gallery(folder) as gallery, monkeypatch.context() as patch:
        fill(gallery, COUNT, 5)

        def fail(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        patch.setattr("service.gallery.snapshot.write", fail)
        assert not gallery._snapshots.write()
        gallery.close()
        assert not (folder / UNFINISHED_SNAPSHOT_NAME).exists()
    caplog.clear()
    with open_gallery(folder) as gallery:
        assert was_loaded(caplog)  # the old one
        assert gallery.crop_count == COUNT + 5


def test_a_snapshot_that_takes_too_long_is_given_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with open_gallery(tmp_path) as gallery:
        fill(gallery)
        assert not gallery._snapshots.write(within_seconds=-1)
        assert "took too long" in caplog.text
        assert not list(tmp_path.glob("*.snapshot*"))


def test_a_snapshot_is_written_when_enough_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "LEAST_CHANGES", COUNT)
    monkeypatch.setattr(recovery, "CHECK_SECONDS", 0.001)
    monkeypatch.setattr(recovery, "PRUNED_AT_ONCE", 7)
    with open_gallery(tmp_path) as gallery:
        fill(gallery, 0, COUNT - 1)
        gallery._snapshots.write_if_due()
        assert not (tmp_path / SNAPSHOT_NAME).exists()
        fill(gallery, COUNT, 1)
        until(lambda: (tmp_path / SNAPSHOT_NAME).exists() and changes(tmp_path) == 0)
        assert gallery.alive
