"""Pictures in an S3-compatible store, played by a small server that keeps objects in a dictionary."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from service.gallery.records import GalleryUnavailable
from service.gallery_milvus import s3
from service.gallery_milvus.s3 import Place, S3Pictures

pytest.importorskip("minio", reason="the extra `cluster` is not installed")

MISSING = b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code><Message>no</Message><Resource>r</Resource></Error>"


class Store(ThreadingHTTPServer):
    """Objects by path; while it is `broken`, every answer is 503."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Objects)
        self.objects: dict[str, bytes] = {}
        self.broken = False


class _Objects(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Store

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.objects[self.path] = body
        self._answer(200, headers={"ETag": '"0"'})

    def do_GET(self) -> None:
        if "location" in self.path:
            self._answer(200, b"<LocationConstraint>us-east-1</LocationConstraint>")
            return
        content = self.server.objects.get(self.path)
        self._answer(404, MISSING) if content is None else self._answer(200, content)

    def do_HEAD(self) -> None:
        there = self.path in self.server.objects or self.path.strip("/") == "crops"
        dated = {"Last-Modified": "Mon, 23 Nov 2026 10:00:00 GMT", "ETag": '"0"'}
        self._answer(200 if there else 404, headers=dated)

    def do_DELETE(self) -> None:
        self.server.objects.pop(self.path, None)
        self._answer(204)

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def _answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        if self.server.broken:
            status, body = 503, b""
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/xml" if body.startswith(b"<") else "image/jpeg")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@pytest.fixture
def store() -> Iterator[Store]:
    with Store() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "s3.json"
    path.write_text(json.dumps({"access_key": "a", "secret_key": "b"}))
    return path


def pictures(store: Store, keys: Path, place: str = "s3://crops/one") -> S3Pictures:
    return S3Pictures(Place.parse(place), f"http://127.0.0.1:{store.server_port}", keys)


def test_pictures_come_back_until_they_are_deleted(store: Store, keys: Path) -> None:
    kept = pictures(store, keys)
    assert (kept.get("a"), kept.has("a")) == (None, False)
    kept.put("a", b"jpeg a")
    kept.put("b", b"jpeg b")
    kept.put("a", b"jpeg a again")
    assert (kept.get("a"), kept.has("a")) == (b"jpeg a again", True)
    assert set(store.objects) == {"/crops/one/a.jpg", "/crops/one/b.jpg"}
    kept.delete(["a", "never"])
    assert (kept.get("a"), kept.get("b")) == (None, b"jpeg b")


def test_a_store_that_fails_is_unavailable(store: Store, keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "RETRIES", 1)
    with pytest.raises(GalleryUnavailable, match="no bucket elsewhere"):
        pictures(store, keys, "s3://elsewhere")
    kept = pictures(store, keys)
    kept.put("a", b"jpeg")
    store.broken = True
    for call in (lambda: kept.get("a"), lambda: kept.put("b", b""), lambda: kept.delete(["b"]), lambda: kept.has("a")):
        with pytest.raises(GalleryUnavailable, match="does not answer"):
            call()
    store.broken = False
    assert kept.get("a") == b"jpeg"


def test_credentials_that_cannot_be_used_are_named(store: Store, tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    for content in ("", "[]", '{"access_key":"a"}'):
        bad.write_text(content)
        with pytest.raises(GalleryUnavailable, match="access_key and secret_key"):
            pictures(store, bad)


@pytest.mark.parametrize(
    ("bucket", "endpoint", "reason"),
    [("ab", "http://127.0.0.1:9", "invalid bucket name ab"), ("crops", "http://127.0.0.1:99999", "invalid port")],
)
def test_a_place_that_cannot_be_is_told_in_one_sentence(keys: Path, bucket: str, endpoint: str, reason: str) -> None:
    with pytest.raises(GalleryUnavailable, match=f"RESIGHT_PICTURES names the bucket {bucket} at .*: {reason}"):
        S3Pictures(Place(bucket, ""), endpoint, keys)


def test_a_line_end_around_a_key_does_not_count(store: Store, tmp_path: Path) -> None:
    credentials = tmp_path / "keys.json"
    credentials.write_text(json.dumps({"access_key": "user\n", "secret_key": "secret\n"}))
    S3Pictures(Place("crops", ""), f"http://127.0.0.1:{store.server_port}", credentials).put("a", b"jpeg")
