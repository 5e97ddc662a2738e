"""Enrolling many crops as a stream, over HTTP, and what is sent for it."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from service.client import NewCrop, Resight, ResightError
from service.client.archives import pieces_of_crops, pieces_of_tar
from tests.drawn_crops import crop, person
from tests.service.api.archives import END, archive, manifest, member
from tests.serving import Served

WHEN = datetime(2026, 11, 1, 10, tzinfo=UTC)
MODEL = {"name": "tiny", "sha256": "ab" * 32}


@pytest.fixture
def resight(service: Served) -> Iterator[Resight]:
    """The typed client of a running service with an empty gallery."""
    with Resight(service.url) as client:
        yield client


def test_a_generator_is_enrolled_as_it_goes(resight: Resight, tmp_path: Path) -> None:
    file = tmp_path / "six.png"
    file.write_bytes(crop(6))
    drawn: list[int] = []

    def crops() -> Iterator[NewCrop]:
        for number in range(5):
            drawn.append(number)
            yield NewCrop(crop(number), identity=str(number), camera="c1", captured_at=WHEN, track="t", meta={"n": 1})
        yield NewCrop(b"no image", name="bad")
        yield NewCrop(file)
        yield NewCrop(person(7), identity="7")

    members = resight.enrol_stream(crops(), at_once=2)
    assert next(members).status == "created"
    assert drawn == [0, 1]  # what comes later is not drawn before it is needed
    rest = list(members)
    assert [one.index for one in rest] == list(range(1, 8))
    assert [one.status for one in rest] == ["created"] * 4 + ["failed", "created", "created"]
    assert [one.name for one in rest[4:]] == ["bad", "six.png", "image-7.png"]
    bad = rest[4].problem
    assert bad is not None
    assert bad.type == "/problems/not-an-image"
    [zero] = resight.crops(identity="0")
    assert (zero.camera, zero.captured_at, zero.track, zero.meta) == ("c1", WHEN, "t", {"n": 1})


def test_a_stream_that_is_sent_again_is_a_duplicate(resight: Resight) -> None:
    crops = [NewCrop(crop(number)) for number in range(3)]
    assert [one.status for one in resight.enrol_stream(crops)] == ["created"] * 3
    assert [one.status for one in resight.enrol_stream(crops)] == ["duplicate"] * 3
    assert list(resight.enrol_stream([])) == []


@pytest.mark.parametrize("compressed", [False, True])
def test_an_archive_is_enrolled_in_pieces(resight: Resight, tmp_path: Path, compressed: bool) -> None:
    said = manifest(
        {"file": "a.png", "identity": "7", "camera": "c9"}, {"file": "gone.png"}, {"file": "d/b.png", "track": "t"}
    )
    files = {"./0002_c1s1_000451_03.png": crop(2), "a.png": crop(7), "d/b.png": crop(8), "-1_c1s1_000001_01.png": b""}
    content = archive(said | files)
    path = tmp_path / "crops.tar"
    path.write_bytes(gzip.compress(content) if compressed else content)
    found = list(resight.enrol_tar(path, at_once=1))
    assert [(one.index, one.name, one.status) for one in found] == [
        (0, "./0002_c1s1_000451_03.png", "created"),
        (1, "a.png", "created"),
        (2, "d/b.png", "created"),
        (3, "-1_c1s1_000001_01.png", "skipped"),
        (4, "gone.png", "failed"),
    ]
    assert [(one.identity, one.camera) for one in found[:2]] == [("0002", "c1"), ("7", "c9")]
    with path.open("rb") as file:
        again = list(resight.enrol_tar(file))
    assert [one.status for one in again] == ["duplicate"] * 3 + ["skipped", "failed"]


def test_what_is_no_plain_file_is_refused_by_the_service(resight: Resight) -> None:
    odd = member("link", kind=tarfile.SYMTYPE, linkname="/etc/passwd") + member("folder", kind=tarfile.DIRTYPE)
    late = member("manifest.jsonl", b"{}") + member("../up.png", crop(1)) + member("large", bytes(9 * 2**20))
    found = list(resight.enrol_tar(io.BytesIO(odd + late + member("good.png", crop(2)) + END), at_once=1))
    kinds = [None if one.problem is None else one.problem.type for one in found]
    assert kinds == [
        "/problems/refused-member",
        "/problems/not-an-image",
        "/problems/refused-member",
        "/problems/file-too-large",
        None,
    ]


def test_a_manifest_that_cannot_be_read_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(ValueError, match="line 2 is no JSON object"):
        list(pieces_of_tar(io.BytesIO(archive({"manifest.jsonl": b'{"file":"a"}\n[]\n'}))))
    with pytest.raises(ValueError, match="line 2 names a file a second time"):
        list(pieces_of_tar(io.BytesIO(archive(manifest({"file": "a"}, {"file": "./a"})))))
    with pytest.raises(tarfile.TarError):
        list(pieces_of_tar(io.BytesIO(b"no archive")))


def test_pieces_are_bounded_in_bytes() -> None:
    crops = [NewCrop(bytes(20 * 2**20)) for _ in range(3)]
    assert [len(piece.names) for piece in pieces_of_crops(crops)] == [2, 1]


def answer(*lines: dict[str, object], done: bool = True, **end: object) -> httpx.Response:
    body = [*lines, {"done": done, "counts": {}, "model": MODEL, **end}]
    return httpx.Response(200, content="\n".join(map(json.dumps, body)))


def test_a_broken_connection_sends_the_piece_again_and_a_full_disk_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.client.connection.time.sleep", lambda _: None)
    stored = {"index": 0, "name": "x", "status": "created", "crop_id": "id"}
    full = {"type": "/problems/storage-full", "title": "The disk is full", "status": 507, "detail": "Free space."}
    coming: Iterator[httpx.Response | Exception] = iter(
        [httpx.ReadError("reset"), answer(stored), answer(stored, done=False, problem=full)]
    )
    sent = []

    def outcome(request: httpx.Request) -> httpx.Response:
        sent.append(request.read())
        assert request.headers["Content-Type"] == "application/x-tar"
        one = next(coming)
        if isinstance(one, Exception):
            raise one
        return one

    client = Resight("http://resight.test", transport=httpx.MockTransport(outcome))
    members = client.enrol_stream((NewCrop(crop(number), name=f"n{number}") for number in range(4)), at_once=1)
    assert (next(members).name, next(members).name) == ("n0", "n1")
    assert sent[0] == sent[1]
    with pytest.raises(ResightError, match="Free space") as caught:
        next(members)
    assert caught.value.status == 507
