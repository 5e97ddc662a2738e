"""The first stage on disk: a restart searches with it, with what was added since, and it keeps nothing erased."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from service.gallery import building
from service.gallery.building import IndexKind
from service.gallery.database import DATABASE_NAME
from service.gallery.folder import SNAPSHOT_NAME, STAGE_NAME, UNFINISHED_STAGE_NAME
from service.gallery.gallery import Gallery
from service.gallery.records import Filters, NewCrop
from service.gallery.sections import SectionReader
from service.gallery.stage import FirstStage
from service.gallery.stagefile import MAGIC, SECTION
from tests.service.gallery.cases import DAMAGE, units, until
from tests.service.gallery.large import DIM, PEOPLE, SHOTS, agreement, enrolled, opened, people, staged

PROBES = people(np.random.default_rng(1), 20, 1)
LOADED, BUILT = "the first stage was loaded from its file", "searches have a first stage"


@pytest.fixture(autouse=True)
def _log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level("INFO", "service.gallery")
    monkeypatch.setattr(building, "CHECK_SECONDS", 0.01)


@pytest.fixture(scope="module")
def crops() -> list[NewCrop]:
    return enrolled(people(np.random.default_rng(2), PEOPLE, SHOTS))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, crops: list[NewCrop]) -> Path:
    """A gallery with a stage on disk, as a kill would leave it, too."""
    folder: Path = tmp_path_factory.mktemp("whole") / "data"
    with opened(folder) as gallery:
        gallery.enrol(crops[:1500])
        staged(gallery)
    return folder


def copied(folder: Path, copy: Path) -> Path:
    """The folder as a kill at this moment would leave it."""
    return Path(shutil.copytree(folder, copy))


def came_from(gallery: Gallery, caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log says of the gallery's stage, once it has one."""
    staged(gallery)
    until(lambda: not {LOADED, BUILT}.isdisjoint(caplog.messages))
    said = [message for message in caplog.messages if "first stage" in message]
    caplog.clear()
    return said


def kept(folder: Path) -> faiss.Index:
    with (folder / STAGE_NAME).open("rb") as file:
        return faiss.read_index(faiss.PyCallbackIOReader(SectionReader(file, MAGIC).checked(SECTION)))


def erase(gallery: Gallery, crops: list[NewCrop]) -> None:
    for crop in crops:
        gallery.delete(crop.crop_id)


@pytest.mark.parametrize("kind", ["ivf", "hnsw", "compressed"])
def test_a_restart_searches_with_the_stage_of_before(
    tmp_path: Path, crops: list[NewCrop], caplog: pytest.LogCaptureFixture, kind: IndexKind
) -> None:
    with opened(tmp_path / "data", kind) as gallery:
        gallery.enrol(crops[:1200])
        assert came_from(gallery, caplog) == [BUILT]
        assert (tmp_path / "data" / STAGE_NAME).stat().st_mode & 0o777 == 0o600
        gallery.enrol(crops[1200:1500])
        killed = copied(tmp_path / "data", tmp_path / "killed")
        gallery.enrol(crops[1500:])
    assert kept(tmp_path / "data").ntotal == 1200  # what came later is added again, which takes no time
    for folder, count in ((tmp_path / "data", 1800), (killed, 1500)):
        with opened(folder, kind) as gallery:
            assert came_from(gallery, caplog) == [LOADED]
            assert gallery._index._stage is not None
            assert len(gallery._index._stage) == gallery.crop_count == count
            assert agreement(gallery, PROBES, Filters()) > 0.9


def test_an_erasure_leaves_no_code_of_the_crop(
    tmp_path: Path, crops: list[NewCrop], caplog: pytest.LogCaptureFixture
) -> None:
    with opened(tmp_path) as gallery:
        gallery.enrol(crops)
        came_from(gallery, caplog)
        erase(gallery, crops[3:100])
        assert not (tmp_path / STAGE_NAME).exists()
        assert gallery._index.staged
        near = agreement(gallery, PROBES, Filters())
    assert kept(tmp_path).ntotal == len(crops) - 97  # of the crops present alone
    with opened(tmp_path) as gallery:
        assert came_from(gallery, caplog) == [LOADED]
        assert agreement(gallery, PROBES, Filters()) == near
        assert agreement(gallery, PROBES, Filters(exclude_cameras=frozenset({"c1"}))) > 0.9


def test_what_is_left_of_a_stage_finds_each_crop_at_its_new_position() -> None:
    rng = np.random.default_rng(3)
    vectors = people(rng, PEOPLE, SHOTS)
    made = FirstStage.trained("ivf", vectors, len(vectors))
    assert made is not None
    made.add(vectors.astype(np.float16), 1)
    kept = rng.random(len(vectors)) < 0.7
    assert made.keep(kept)
    assert len(made) == np.count_nonzero(kept)
    made.add(vectors[:5].astype(np.float16), 1)
    for position, vector in enumerate([*vectors[kept], *vectors[:5]]):
        assert position in made.likely(vector, 10, None, 1000.0)[0]


def test_a_graph_with_erased_crops_is_not_kept(
    tmp_path: Path, crops: list[NewCrop], caplog: pytest.LogCaptureFixture
) -> None:
    with opened(tmp_path, "hnsw") as gallery:
        gallery.enrol(crops)
        came_from(gallery, caplog)
        erase(gallery, crops[:1])
    assert not (tmp_path / STAGE_NAME).exists()
    with opened(tmp_path, "hnsw") as gallery:
        assert came_from(gallery, caplog) == [BUILT]
    assert (tmp_path / STAGE_NAME).exists()


@pytest.mark.parametrize("when", ["trained", "write"])
def test_an_erasure_while_it_is_built_or_written_keeps_it_off_the_disk(
    tmp_path: Path, crops: list[NewCrop], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, when: str
) -> None:
    original = getattr(FirstStage, when)

    def erasing(*arguments: Any) -> Any:
        done = original(*arguments)
        erase(gallery, crops[7:8])
        return done

    with opened(tmp_path) as gallery:
        with monkeypatch.context() as patch:
            patch.setattr(FirstStage, when, erasing)
            gallery.enrol(crops)
            came_from(gallery, caplog)
        assert not list(tmp_path.glob("*.stage*"))
    assert kept(tmp_path).ntotal == len(crops) - 1


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_stage_is_built_anew(
    tmp_path: Path, whole: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    folder = copied(whole, tmp_path / "data")
    DAMAGE[kind](folder / STAGE_NAME)
    with opened(folder) as gallery:
        of_no_use, built = came_from(gallery, caplog)
        assert "of no use" in of_no_use
        assert built == BUILT
    with opened(folder) as gallery:
        assert came_from(gallery, caplog) == [LOADED]


def newer_faiss(folder: Path, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faiss, "__version__", "99.0")


def other_crops(folder: Path, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors: NDArray[np.float32] = people(np.random.default_rng(4), 250, SHOTS)
    with opened(other) as gallery:
        gallery.enrol(enrolled(vectors, 1))
        staged(gallery)
    shutil.copy(other / STAGE_NAME, folder)


def other_model(folder: Path, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(sqlite3.connect(folder / DATABASE_NAME)) as connection, connection:
        connection.execute("UPDATE gallery SET model_sha256 = ?", ("b" * 64,))
    (folder / SNAPSHOT_NAME).unlink()
    monkeypatch.setattr("tests.service.gallery.large.MODEL", "b" * 64)


def damaged_crop(folder: Path, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(sqlite3.connect(folder / DATABASE_NAME)) as connection, connection:
        connection.execute("UPDATE embeddings SET vector = zeroblob(?) WHERE row = 9", (2 * DIM,))
    (folder / SNAPSHOT_NAME).unlink()


def other_vectors(folder: Path, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = people(np.random.default_rng(5), 250, SHOTS).astype(np.float16)
    written = [(blob, zlib.crc32(blob), row) for row, blob in enumerate((v.tobytes() for v in vectors), 1)]
    with closing(sqlite3.connect(folder / DATABASE_NAME)) as connection, connection:
        connection.executemany("UPDATE embeddings SET vector = ?, crc32 = ? WHERE row = ?", written)
    (folder / SNAPSHOT_NAME).unlink()


@pytest.mark.parametrize("change", [newer_faiss, other_crops, other_model, damaged_crop, other_vectors])
def test_a_stage_of_something_else_is_built_anew(
    tmp_path: Path, whole: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, change: Any
) -> None:
    folder = copied(whole, tmp_path / "data")
    with monkeypatch.context() as patch:
        change(folder, tmp_path / "other", patch)
        caplog.clear()
        with opened(folder) as gallery:
            of_no_use, built = came_from(gallery, caplog)
    assert "of another model or FAISS, or not of these crops" in of_no_use
    assert built == BUILT


@pytest.mark.parametrize(("dim", "count"), [(DIM + 1, 1500), (DIM, 1499), (DIM, 1501)])
def test_a_stage_of_another_size_than_it_says_is_built_anew(
    tmp_path: Path, whole: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, dim: int, count: int
) -> None:
    folder = copied(whole, tmp_path / "data")
    vectors = units(np.random.default_rng(6), count, dim)
    other = FirstStage.trained("ivf", vectors, count)
    assert other is not None
    other.add(vectors.astype(np.float16), 1)
    monkeypatch.setattr(FirstStage, "read", lambda *_: other)
    with opened(folder) as gallery:
        of_no_use, built = came_from(gallery, caplog)
    assert "not of as many numbers or crops as it says" in of_no_use
    assert built == BUILT


def test_a_stage_of_another_kind_is_built_anew(tmp_path: Path, whole: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = copied(whole, tmp_path / "data")
    with opened(folder, "hnsw") as gallery:
        staged(gallery)
        assert {record.levelname for record in caplog.records} == {"INFO"}  # somebody chose so
        of_ivf, built = came_from(gallery, caplog)
    assert of_ivf == "the first stage on disk is of ivf, hnsw is wanted: it is built anew"
    assert built == BUILT
    with opened(folder, "hnsw") as gallery:
        assert came_from(gallery, caplog) == [LOADED]


def test_a_stage_is_kept_where_the_snapshot_is_lost(
    tmp_path: Path, whole: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = copied(whole, tmp_path / "data")
    (folder / SNAPSHOT_NAME).unlink()
    with opened(folder) as gallery:
        assert came_from(gallery, caplog) == [LOADED]


def test_a_full_disk_is_no_harm(
    tmp_path: Path, crops: list[NewCrop], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("service.gallery.stagefile.SectionWriter.begin", lambda *_: full)
    monkeypatch.setattr("service.gallery.snapshot.write", full)
    with opened(tmp_path) as gallery:
        gallery.enrol(crops)
        assert "not kept on disk: [Errno 28]" in came_from(gallery, caplog)[0]
        assert not (tmp_path / UNFINISHED_STAGE_NAME).exists()
        assert agreement(gallery, PROBES, Filters()) > 0.9
