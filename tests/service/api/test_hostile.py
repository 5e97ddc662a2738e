"""Hostile and odd files and requests: the documented answer, nothing left behind, and the service goes on.

What is wrong with single fields, items and forms is in `test_bad_input`, archives are in `test_bulk_routes`.
"""

from __future__ import annotations

import http.client
import io
import json
import select
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks.hostile_memory import greedy, measure
from service.settings import Settings
from tests.drawn_crops import crop, uploads
from tests.service.api.canonical_error import expect
from tests.service.api.hostile_files import LARGEST, ODD, REFUSED, SCRIPT
from tests.serving import Served, serve
from tests.tiny_model import DIM

GOOD = crop(1)


@pytest.fixture(scope="module")
def served(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One service for all of this module, which must survive all of it."""
    folder = tmp_path_factory.mktemp("data")
    with serve(Settings(model=model_path, device="cpu", gallery=f"sqlite:///{folder}", threads=2)) as service:
        service.client.post("/gallery", files=uploads(GOOD), data={"identity": "a"})
        yield service


@pytest.fixture(autouse=True)
def _goes_on(served: Served) -> Iterator[None]:
    """After each file and request, somebody else is served as if nothing had been."""
    yield
    answer = served.client.post("/query", files=uploads(GOOD), data={"identity": "a"})
    assert answer.json()["matches"][0]["identity"] == "a"
    assert served.runtime.worker.admitted == 0


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_file(served: Served, name: str) -> None:
    make, slug = REFUSED[name]
    before = served.runtime.gallery.crop_count
    expect(served.client.post("/gallery", files=uploads(GOOD, make())), slug, 1)
    assert served.runtime.gallery.crop_count == before


@pytest.mark.filterwarnings("ignore:(Possibly c|C)orrupt EXIF data", "ignore:Tag data larger than file")
@pytest.mark.parametrize("name", [*ODD, *LARGEST])
def test_an_odd_file_is_enrolled_and_found(served: Served, name: str) -> None:
    data = {**ODD, **LARGEST}[name]()
    (result,) = served.client.post("/gallery", files=uploads(data)).json()["results"]
    stored = served.client.get(f"/gallery/{result['crop_id']}/image").content
    assert Image.open(io.BytesIO(stored)).format == "JPEG"
    assert SCRIPT not in stored
    found = served.client.post("/query", files=uploads(data)).json()["matches"]
    assert result["crop_id"] in [match["crop_id"] for match in found if match["distance"] < 0.01]
    assert served.client.delete(f"/gallery/{result['crop_id']}").status_code == 204


def test_every_kind_of_odd_and_hostile_file_is_there() -> None:
    assert len(REFUSED) + len(ODD) + len(REQUESTS) >= 60


FORM = {"Content-Type": "multipart/form-data; boundary=b"}
JSON = {"Content-Type": "application/json"}


def part(name: str, data: bytes = b"") -> bytes:
    return f'--b\r\nContent-Disposition: form-data; name="{name}"; filename="../../x"\r\n\r\n'.encode() + data + b"\r\n"


def crop_ids(text: str) -> bytes:
    return b'{"crop_ids": [' + text.encode() + b"]}"


# name -> (method, address, arguments of the request, problem, index)
REQUESTS: dict[str, tuple[str, str, dict[str, Any], str, int | None]] = {
    "10,000 pictures": (
        "POST",
        "/gallery",
        {"content": part("images", GOOD) * 10_000 + b"--b--\r\n", "headers": FORM},
        "too-many-images",
        64,
    ),
    "10,000 fields": (
        "POST",
        "/query",
        {"content": part("camera", b"c") * 10_000, "headers": FORM},
        "malformed-body",
        None,
    ),
    "10,000 headers of a part": (
        "POST",
        "/embed",
        {"content": b"--b\r\n" + b"X: y\r\n" * 10_000 + b"\r\n--b--\r\n", "headers": FORM},
        "malformed-body",
        None,
    ),
    "a name of 1 MiB": ("POST", "/embed", {"content": part("x" * 2**20), "headers": FORM}, "malformed-body", None),
    "a picture by address": (
        "POST",
        "/gallery",
        {"data": {"url": "http://169.254.169.254/"}, "files": uploads(GOOD)},
        "unknown-field",
        None,
    ),
    "a picture by path": (
        "POST",
        "/query",
        {"data": {"path": "/etc/passwd"}, "files": uploads(GOOD)},
        "unknown-field",
        None,
    ),
    "JSON 100,000 deep": ("POST", "/query", {"content": b"[" * 100_000, "headers": JSON}, "malformed-body", None),
    "JSON objects 100,000 deep": (
        "POST",
        "/query",
        {"content": b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "headers": JSON},
        "malformed-body",
        None,
    ),
    "an integer of 100,000 digits": (
        "POST",
        "/query",
        {"content": b'{"top_k": ' + b"9" * 100_000 + b"}", "headers": JSON},
        "malformed-body",
        None,
    ),
    "half a character": ("POST", "/query", {"content": crop_ids('"\\ud800"'), "headers": JSON}, "malformed-body", None),
    "an id with NUL": ("POST", "/query", {"content": crop_ids('"a\\u0000b"'), "headers": JSON}, "unknown-crop", None),
    "an id of 1 MB": (
        "POST",
        "/query",
        {"content": crop_ids('"' + "a" * 10**6 + '"'), "headers": JSON},
        "unknown-crop",
        None,
    ),
    "another id's form": (
        "POST",
        "/query",
        {"content": crop_ids('"{00000000-0000-0000-0000-000000000000}"'), "headers": JSON},
        "unknown-crop",
        None,
    ),
    "200,000 ids": (
        "POST",
        "/query",
        {"content": crop_ids(",".join(['""'] * 200_000)), "headers": JSON},
        "invalid-field",
        None,
    ),
    "NaN as an embedding": (
        "POST",
        "/query",
        {"content": b'{"embedding": [' + b",".join([b"NaN"] * DIM) + b'], "model_sha256": "x"}', "headers": JSON},
        "invalid-field",
        None,
    ),
    "an id with ../": ("GET", "/gallery/..%2F..%2Fetc%2Fpasswd", {}, "not-found", None),
    "an id of dots": ("DELETE", "/gallery/%2E%2E", {}, "unknown-crop", None),
    "an id with NUL in the address": ("GET", "/gallery/a%00b", {}, "unknown-crop", None),
    "an id that turns text around": ("DELETE", "/gallery/%E2%80%AEgnp.exe", {}, "unknown-crop", None),
    "an id that is no UTF-8": ("GET", "/gallery/%FF%FE/image", {}, "unknown-crop", None),
    "an id that is SQL": ("GET", "/gallery/'%20OR%201=1--", {}, "unknown-crop", None),
    "an id of 30,000 characters": ("GET", "/gallery/" + "a" * 30_000, {}, "unknown-crop", None),
    "a limit beyond 64 bits": ("GET", "/gallery?limit=" + "9" * 30, {}, "invalid-field", None),
    "a cursor with NUL": ("GET", "/gallery?cursor=%00", {}, "invalid-cursor", None),
    "a camera of another alphabet": ("GET", "/gallery?camera=%E2%80%AE", {}, "invalid-field", None),
    "1001 cameras": ("GET", "/gallery?" + "camera=c&" * 1001, {}, "invalid-field", None),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_hostile_request(served: Served, name: str) -> None:
    method, address, arguments, slug, index = REQUESTS[name]
    body = expect(served.client.request(method, address, **arguments), slug, index)
    assert len(body["detail"]) < 500


@pytest.mark.parametrize("route", ["/gallery", "/query", "/embed"])
def test_a_body_without_end_is_answered_amidst(served: Served, route: str) -> None:
    connection = http.client.HTTPConnection(served.url.removeprefix("http://"), timeout=30)
    connection.putrequest("POST", route)
    for name, value in {**FORM, "Transfer-Encoding": "chunked"}.items():
        connection.putheader(name, value)
    connection.endheaders()
    piece = part("images")[:-2]
    sent = 0
    while not select.select([connection.sock], [], [], 0)[0]:
        connection.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        sent += len(piece)
        piece = bytes(2**18)
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["type"]) == (413, "/problems/file-too-large")
    assert sent < 64 * 2**20
    connection.close()


def test_an_embedding_of_giant_numbers_is_one(served: Served) -> None:
    body = {"embedding": [1e308] * DIM, "model_sha256": served.runtime.info.sha256}
    assert served.client.post("/query", json=body).status_code == 200


def test_a_request_id_cannot_forge_a_line_of_the_log(served: Served) -> None:
    answer = served.client.get("/livez", headers={"X-Request-Id": 'a" injected="b'})
    assert '"' not in answer.headers["X-Request-Id"]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's peak of a process is read from /proc")
def test_no_file_takes_much_memory() -> None:
    """Of a service in a process of its own, at its peak, one after the other."""
    grown = measure()
    assert len(grown) == len(REFUSED) + len(ODD) + len(LARGEST)
    assert greedy(grown) == {}
