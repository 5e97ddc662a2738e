"""Another model takes a gallery over whole or not at all, and goes on where it was killed."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from service.gallery.database import DATABASE_NAME
from service.gallery.gallery import Gallery
from service.gallery.records import GalleryLocked, GalleryUnavailable, Labels, ModelMismatch, NewCrop, QueryOptions
from service.inference.engine import EngineError, Inference, OnnxEngine
from service.inference.images import decode_crop, thumbnail
from service.inference.loading import load_engine
from service.inference.model import read_model
from service.jobs import reembed as reembed_module
from service.jobs.reembed import PicturesMissing, Reembedded, reembed
from tests.drawn_crops import crop, encoded, person
from tests.service.gallery.cases import crop_id
from tests.tiny_model import write_tiny_model

ROOT = Path(__file__).parents[3]
CROPS = 24


def load(path: Path) -> OnnxEngine:
    return load_engine(read_model(path), "cpu", 1, 4)


@pytest.fixture(scope="module")
def old(model_path: Path) -> OnnxEngine:
    return load(model_path)


@pytest.fixture(scope="module")
def new_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("new") / "new.onnx"
    return write_tiny_model(path, {"name": "tiny-retrained"}, colours=(1.0, 0.2, -0.5))


@pytest.fixture(scope="module")
def new(new_path: Path) -> OnnxEngine:
    return load(new_path)


def opened(folder: Path, engine: OnnxEngine) -> Gallery:
    info = engine.info
    return Gallery.open(folder, info.sha256, info.name, info.embedding_dim, None, None)


def picture(number: int, engine: OnnxEngine) -> NDArray[np.uint8]:
    return decode_crop(crop(number), engine.info.height, engine.info.width)


def enrol(gallery: Gallery, engine: OnnxEngine, numbers: range, stored: Callable[[int], bytes | None]) -> None:
    embeddings = engine.run(np.stack([picture(n, engine) for n in numbers])).embeddings
    crops = zip(numbers, embeddings, strict=True)
    labels = [Labels(f"p{n % 4}", f"c{n % 2}", meta={"n": n}) for n in numbers]
    gallery.enrol([NewCrop(crop_id(n), e, stored(n), labels[i]) for i, (n, e) in enumerate(crops)])


@pytest.fixture
def folder(tmp_path: Path, old: OnnxEngine) -> Path:
    """A gallery of CROPS crops by the old model that nobody has open."""
    with opened(tmp_path / "data", old) as gallery:
        enrol(gallery, old, range(CROPS), lambda n: thumbnail(picture(n, old)))
    return tmp_path / "data"


def check_embedded(folder: Path, engine: OnnxEngine, numbers: range = range(CROPS)) -> None:
    """Every crop is there, by this model, from its stored picture, and is found by it."""
    with opened(folder, engine) as gallery:
        assert gallery.crop_count == len(numbers)
        for n in numbers:
            stored = gallery.image(crop_id(n))
            assert stored is not None
            pixels = decode_crop(stored, engine.info.height, engine.info.width)
            expected = engine.run(pixels[None]).embeddings
            assert np.allclose(gallery.embeddings([crop_id(n)]), expected, atol=0.03)
            found = gallery.query(expected, QueryOptions(top_k=1, crops_per_identity=CROPS)).matches[0]
            assert found.distance < 0.02
            assert gallery.get(crop_id(n)).meta == {"n": n}


def dump(folder: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(folder / DATABASE_NAME)) as connection:
        query = "SELECT crop_id, vector, jpeg FROM crops JOIN embeddings USING (row) LEFT JOIN pictures USING (row)"
        return connection.execute(query).fetchall()


def test_the_gallery_goes_over_to_the_new_model(folder: Path, old: OnnxEngine, new: OnnxEngine) -> None:
    with pytest.raises(ModelMismatch, match="let `resight reembed` embed its pictures with this one"):
        opened(folder, new)
    told: list[tuple[int, int]] = []
    done = reembed(folder, new, progress=lambda *step: told.append(step))
    assert done == Reembedded(needed=True, embedded=CROPS)
    assert (told[0], told[-1]) == ((0, CROPS), (CROPS, CROPS))
    with closing(sqlite3.connect(folder / DATABASE_NAME)) as connection:
        for table in ("reembedded", "reembedding", "snapshot"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
    assert reembed(folder, new) == Reembedded(needed=False)
    with pytest.raises(ModelMismatch):
        opened(folder, old)
    check_embedded(folder, new)


KILLED = """
import os, signal, sys
from pathlib import Path
from service.jobs import reembed as job
from tests.service.jobs.test_reembed import load

job.CHUNK = 4
def die(done, total):
    if done >= 12:
        os.kill(os.getpid(), signal.SIGKILL)

job.reembed(Path(sys.argv[1]), load(Path(sys.argv[2])), progress=die)
"""


def test_a_killed_change_is_served_by_the_old_model_and_goes_on(
    folder: Path, new_path: Path, old: OnnxEngine, new: OnnxEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-c", KILLED, str(folder), str(new_path)]
    ended = subprocess.run(command, cwd=ROOT, check=False, capture_output=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    check_embedded(folder, old)
    with opened(folder, old) as gallery:  # life goes on meanwhile
        enrol(gallery, old, range(CROPS, CROPS + 3), lambda n: thumbnail(picture(n, old)))
        gallery.delete(crop_id(0))
    assert reembed(folder, new) == Reembedded(needed=True, embedded=CROPS + 3 - 12, found=11)
    check_embedded(folder, new, range(1, CROPS + 3))


def test_a_change_to_yet_another_model_starts_anew(
    folder: Path, old: OnnxEngine, new: OnnxEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_after(8, folder, new, monkeypatch)
    third = load(write_tiny_model(tmp_path / "third.onnx", {"name": "third"}, colours=(0.1, 1.0, 0.4)))
    assert reembed(folder, third) == Reembedded(needed=True, embedded=CROPS)
    check_embedded(folder, third)


def test_going_back_to_the_old_model_gives_the_change_up(
    folder: Path, old: OnnxEngine, new: OnnxEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_after(8, folder, new, monkeypatch)
    assert reembed(folder, old) == Reembedded(needed=False)
    with closing(sqlite3.connect(folder / DATABASE_NAME)) as connection:
        assert connection.execute("SELECT count(*) FROM reembedded").fetchone() == (0,)
    check_embedded(folder, old)


def stop_after(count: int, folder: Path, engine: OnnxEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reembed_module, "CHUNK", 4)

    def stop(done: int, _total: int) -> None:
        if done >= count:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reembed(folder, engine, progress=stop)


def test_crops_without_a_usable_picture_are_named_and_kept(folder: Path, old: OnnxEngine, new: OnnxEngine) -> None:
    black = encoded(person(1).point(lambda _: 0), "JPEG")  # to the tiny model a picture without direction
    kept = {CROPS: None, CROPS + 1: b"\xff\xd8\xff no picture", CROPS + 2: black}
    with opened(folder, old) as gallery:
        enrol(gallery, old, range(CROPS, CROPS + 1), kept.__getitem__)
    before = dump(folder)
    with pytest.raises(PicturesMissing, match="1 crop has no picture") as bare:
        reembed(folder, new, progress=lambda *_: pytest.fail("nothing needs to be embedded to tell that"))
    assert [(one.crop_id, one.identity, one.reason) for one in bare.value.lost] == [
        (crop_id(CROPS), "p0", "no picture was stored")
    ]
    assert dump(folder) == before

    with opened(folder, old) as gallery:
        gallery.delete(crop_id(CROPS))
        enrol(gallery, old, range(CROPS + 1, CROPS + 3), kept.__getitem__)
    before = dump(folder)
    with pytest.raises(PicturesMissing, match="2 crops have no picture that can be embedded") as missing:
        reembed(folder, new)
    assert [(one.crop_id, one.reason) for one in missing.value.lost] == [
        (crop_id(CROPS + 1), "its stored picture is damaged"),
        (crop_id(CROPS + 2), "the model gives no embedding for its picture"),
    ]
    assert dump(folder) == before

    done = reembed(folder, new, drop_missing=True)
    assert (done.embedded, done.found, len(done.dropped)) == (0, CROPS, 2)
    check_embedded(folder, new)


class Failing:
    """An engine that breaks for good after some runs."""

    def __init__(self, engine: OnnxEngine, runs: int) -> None:
        self._engine, self._left = engine, runs
        self.info, self.provider, self.images_per_second = engine.info, engine.provider, 1.0
        self.runs_at_once = 1

    def run(self, crops: NDArray[np.uint8], attention: bool = False) -> Inference:
        self._left -= 1
        if self._left < 0:
            raise RuntimeError("the device is gone")
        return self._engine.run(crops, attention)


def test_a_broken_engine_costs_no_crop(
    folder: Path, old: OnnxEngine, new: OnnxEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reembed_module, "CHUNK", 4)
    with pytest.raises(EngineError, match="the device is gone"):
        reembed(folder, Failing(new, 2), drop_missing=True)
    check_embedded(folder, old)
    assert reembed(folder, new, drop_missing=True) == Reembedded(needed=True, embedded=CROPS - 8, found=8)
    check_embedded(folder, new)


def test_a_served_gallery_and_none_at_all_are_refused(folder: Path, old: OnnxEngine, new: OnnxEngine) -> None:
    with opened(folder, old), pytest.raises(GalleryLocked):
        reembed(folder, new)
    with pytest.raises(GalleryUnavailable, match="There is no gallery in"):
        reembed(folder.parent / "nowhere", new)
    assert not os.path.lexists(folder.parent / "nowhere")
