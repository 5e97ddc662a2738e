"""What is exported and imported again is the same gallery; an archive that is not whole says so."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.gallery.audit import Audit
from service.gallery.gallery import Gallery
from service.gallery.records import Crop, GalleryUnavailable, Labels, NewCrop
from service.inference.engine import EngineError, OnnxEngine
from service.inference.images import decode_crop, thumbnail
from service.inference.loading import load_engine
from service.inference.model import ModelFile
from service.jobs import import_crops as import_module
from service.jobs.export_crops import Exported, export_crops
from service.jobs.import_crops import Imported, import_crops
from service.jobs.job import JobError
from tests.drawn_crops import crop, encoded, person
from tests.service.gallery.cases import crop_id
from tests.service.jobs.test_reembed import Failing
from tests.tiny_model import HEIGHT, WIDTH

LONG_AGO = datetime(2025, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
CROPS = 10


@pytest.fixture(scope="module")
def engine(model_file: ModelFile) -> OnnxEngine:
    return load_engine(model_file, "cpu", 1, 4)


def opened(folder: Path, engine: OnnxEngine) -> Gallery:
    info = engine.info
    return Gallery.open(folder, info.sha256, info.name, info.embedding_dim, None, None)


def new_crop(number: int, engine: OnnxEngine, *, picture: bool = True) -> NewCrop:
    """A crop with whatever labels there are; every third without a name."""
    pixels = decode_crop(crop(number), HEIGHT, WIDTH)
    labels = Labels(
        identity=f"p{number}" if number % 3 else None,
        camera=f"c{number % 2}" if number % 4 else None,
        captured_at=LONG_AGO + timedelta(microseconds=number) if number % 2 else None,
        track="t:1" if number % 5 == 0 else None,
        meta={"n": number, "none": None, "list": [1, {"ü": "\u202e"}]} if number % 2 else None,
    )
    embedding = engine.run(pixels[None]).embeddings[0]
    stored = thumbnail(pixels) if picture else None
    return NewCrop(crop_id(number), embedding, stored, labels, LONG_AGO + timedelta(days=number), ("p90", "-1"))


@pytest.fixture
def folder(tmp_path: Path, engine: OnnxEngine) -> Path:
    with opened(tmp_path / "data", engine) as gallery:
        gallery.enrol([new_crop(n, engine) for n in range(CROPS)])
    return tmp_path / "data"


@pytest.fixture
def archive(folder: Path, tmp_path: Path) -> Path:
    export_crops(folder, tmp_path / "crops.tar")
    return tmp_path / "crops.tar"


def bring_in(source: Path, folder: Path, engine: Any, **more: Any) -> Imported:
    with opened(folder, engine) as gallery, Audit.open(folder) as audit:
        return import_crops(source, gallery, audit, engine, "thumbnail", **more)


def crops_of(folder: Path, engine: OnnxEngine, numbers: Sequence[int] = range(CROPS)) -> list[Crop]:
    with opened(folder, engine) as gallery:
        assert gallery.crop_count == len(numbers)
        return [gallery.get(crop_id(n)) for n in numbers]


def test_an_imported_export_is_the_gallery(folder: Path, archive: Path, tmp_path: Path, engine: OnnxEngine) -> None:
    told: list[tuple[int, int]] = []
    done = bring_in(archive, tmp_path / "other", engine, progress=lambda *step: told.append(step))
    assert done == Imported(created=CROPS, known=0, left_out=())
    assert told[-1] == (CROPS, CROPS)
    imported = crops_of(tmp_path / "other", engine)
    assert imported == crops_of(folder, engine)
    assert (imported[1].enrolled_at, imported[1].not_identity) == (LONG_AGO + timedelta(days=1), ("-1", "p90"))
    with opened(folder, engine) as was, opened(tmp_path / "other", engine) as now:
        ids = [crop_id(n) for n in range(CROPS)]
        assert np.allclose(now.embeddings(ids), was.embeddings(ids), atol=0.03)
        assert all(now.image(one) for one in ids)


def test_an_export_can_be_read_by_hand(archive: Path, engine: OnnxEngine) -> None:
    with tarfile.open(archive) as tar:
        names = tar.getnames()
        assert names[0] == "manifest.jsonl"
        head, *lines = [json.loads(line) for line in tar.extractfile("manifest.jsonl") or ()]
        assert head == {"format": "resight-export/1", "crops": CROPS}
        assert names[1:] == [line["file"] for line in lines]
        assert lines[1]["identity"] == "p1"
        assert lines[1]["enrolled_at"] == "2025-03-02T12:00:00.123456Z"
        picture = tar.extractfile(lines[1]["file"])
        assert picture is not None
        assert decode_crop(picture.read(), HEIGHT, WIDTH).shape == (HEIGHT, WIDTH, 3)
    assert archive.stat().st_mode & 0o077 == 0


def test_an_import_goes_on_and_changes_nothing_that_is_there(
    archive: Path, tmp_path: Path, engine: OnnxEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module, "CHUNK", 3)
    with pytest.raises(EngineError, match="the device is gone"):
        bring_in(archive, tmp_path / "other", Failing(engine, 2))
    with opened(tmp_path / "other", engine) as gallery:
        assert gallery.crop_count == 6
        gallery.enrol([NewCrop(crop_id(1), None, labels=Labels(identity="renamed"))])
    assert bring_in(archive, tmp_path / "other", engine) == Imported(created=4, known=6, left_out=())
    assert crops_of(tmp_path / "other", engine)[1].identity == "renamed"


def test_an_import_ends_before_the_disk_is_full_and_goes_on_when_it_is_not(
    archive: Path, tmp_path: Path, engine: OnnxEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module, "CHUNK", 3)

    def fills(done: int, _total: int) -> None:
        if done == 6:
            monkeypatch.setattr("service.gallery.space.LEAST_BYTES", 2**60)
            monkeypatch.setattr("service.gallery.space.LEAST_SHARE", 1.0)

    with pytest.raises(JobError, match=r"the disk of the gallery is nearly full.*free space, and the same command"):
        bring_in(archive, tmp_path / "other", engine, progress=fills)
    crops_of(tmp_path / "other", engine, range(6))
    monkeypatch.undo()
    assert bring_in(archive, tmp_path / "other", engine) == Imported(created=4, known=6, left_out=())


def test_a_crop_with_very_many_marks_is_imported(tmp_path: Path, engine: OnnxEngine) -> None:
    marks = tuple(f"{n:0128}" for n in range(1000))
    with opened(tmp_path / "data", engine) as gallery:
        gallery.enrol([replace(new_crop(0, engine), not_identity=marks)])
    export_crops(tmp_path / "data", tmp_path / "crops.tar")
    assert bring_in(tmp_path / "crops.tar", tmp_path / "other", engine).created == 1
    assert crops_of(tmp_path / "other", engine, range(1))[0].not_identity == marks


def test_crops_without_a_usable_picture_are_named(folder: Path, tmp_path: Path, engine: OnnxEngine) -> None:
    with opened(folder, engine) as gallery:
        gallery.enrol([new_crop(CROPS, engine, picture=False)])
    assert export_crops(folder, tmp_path / "crops.tar") == Exported(CROPS + 1, without_picture=1)
    black = encoded(person(1).point(lambda _: 0), "JPEG")
    broken = {f"crops/{crop_id(2)}.jpg": b"GIF89a", f"crops/{crop_id(3)}.jpg": black, f"crops/{crop_id(4)}.jpg": None}
    rewritten(tmp_path / "crops.tar", broken)
    done = bring_in(tmp_path / "crops.tar", tmp_path / "other", engine)
    reasons = {one.crop_id: one.reason for one in done.left_out}
    assert reasons.pop(crop_id(2)).startswith("its picture cannot be used: This file is not a JPEG")
    assert reasons == {
        crop_id(CROPS): "the archive has no picture of it",
        crop_id(3): "the model gives no embedding for its picture",
        crop_id(4): "the archive does not have the picture that its manifest names",
    }
    assert (done.created, done.known) == (CROPS - 3, 0)


def rewritten(path: Path, changes: dict[str, bytes | None], names: Callable[[str], str] = str) -> None:
    """The archive with other contents for some members; None leaves one out."""
    file = io.BytesIO()
    with tarfile.open(path) as old, tarfile.open(fileobj=file, mode="w") as new:
        for member in old.getmembers():
            was = old.extractfile(member)
            assert was is not None
            content = changes.get(member.name, was.read())
            if content is not None:
                member.size, member.name = len(content), names(member.name)
                new.addfile(member, io.BytesIO(content))
    path.write_bytes(file.getvalue())


def test_an_archive_that_is_cut_off_or_none_is_refused(archive: Path, tmp_path: Path, engine: OnnxEngine) -> None:
    whole = archive.read_bytes()
    end = len(whole.rstrip(b"\0"))
    refused = 0
    for length in range(100, end, end // 25):  # whether it ends in a picture or between two: nothing passes as whole
        archive.write_bytes(whole[:length])
        try:
            assert bring_in(archive, tmp_path / "other", engine).left_out
        except JobError as error:
            refused += "damaged or cut off" in str(error) or "names" in str(error)
    assert refused > 10
    archive.write_bytes(whole)
    assert bring_in(archive, tmp_path / "other", engine).left_out == ()
    assert len(crops_of(tmp_path / "other", engine)) == CROPS
    for content in (b"", b"no tar at all" * 100):
        archive.write_bytes(content)
        with pytest.raises(JobError, match=r"damaged or cut off|no export"):
            bring_in(archive, tmp_path / "other", engine)
    with pytest.raises(JobError, match="cannot be read: No such file"):
        bring_in(tmp_path / "nothing.tar", tmp_path / "other", engine)


def line(**changes: Any) -> bytes:
    fields = {"crop_id": crop_id(1), "file": "crops/1.jpg", "enrolled_at": "2026-01-01T00:00:00Z", **changes}
    return json.dumps(fields).encode() + b"\n"


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        (b'{"format":"resight-export/2","crops":0}\n', "its first line: Input should be 'resight-export/1'"),
        (b'{"format":"resight-export/1","crops":2}\n' + line(), "names 1 crops and says it has 2"),
        (b'{"format":"resight-export/1","crops":1}\n' + line(crop_id="../../etc/passwd"), "line 2: .*UUID"),
        (b'{"format":"resight-export/1","crops":1}\n' + line(identity="a b"), "line 2: "),
        (b'{"format":"resight-export/1","crops":1}\n' + line(not_identity=["/"]), "line 2: "),
        (b'{"format":"resight-export/1","crops":1}\n' + line(enrolled_at="yesterday"), "line 2: "),
        (b'{"format":"resight-export/1","crops":1}\n' + line(password="x"), "line 2: Extra inputs"),
        (b"no json\n", "its first line: Invalid JSON"),
    ],
)
def test_a_manifest_that_cannot_be_used_enrols_nothing(
    archive: Path, tmp_path: Path, engine: OnnxEngine, manifest: bytes, reason: str
) -> None:
    rewritten(archive, {"manifest.jsonl": manifest})
    with pytest.raises(JobError, match=reason):
        bring_in(archive, tmp_path / "other", engine)
    assert crops_of(tmp_path / "other", engine, []) == []


def test_members_that_are_not_in_the_manifest_are_passed_over(
    archive: Path, tmp_path: Path, engine: OnnxEngine
) -> None:
    rewritten(archive, {}, names=lambda name: f"../../{name}" if crop_id(2) in name else name)
    done = bring_in(archive, tmp_path / "other", engine)
    assert [one.crop_id for one in done.left_out] == [crop_id(2)]
    assert not (tmp_path / "crops").exists()


def test_an_export_replaces_nothing_and_leaves_nothing_unfinished(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.tar").write_text("mine")
    with pytest.raises(JobError, match="exists already"):
        export_crops(folder, tmp_path / "mine.tar")
    with pytest.raises(GalleryUnavailable, match="There is no gallery"):
        export_crops(tmp_path / "nowhere", tmp_path / "other.tar")

    def stop(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_crops(folder, tmp_path / "other.tar", stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "mine.tar"]


def test_a_gallery_is_exported_while_it_is_served(folder: Path, tmp_path: Path, engine: OnnxEngine) -> None:
    with opened(folder, engine) as gallery:

        def enrol(_done: int, _total: int) -> None:
            gallery.enrol([new_crop(CROPS, engine)])

        assert export_crops(folder, tmp_path / "crops.tar", enrol) == Exported(CROPS, 0)
        assert gallery.crop_count == CROPS + 1
