"""Every kind of bad input: the documented problem, the canonical shape of errors, and nothing written."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from service.api import limits
from service.settings import Settings
from tests.drawn_crops import crop, encoded, person, uploads
from tests.service.api.canonical_error import expect
from tests.serving import Served, serve
from tests.tiny_model import DIM

GOOD = crop(1)
PNG = encoded(person(2))


@pytest.fixture(scope="module")
def served(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One service for all of this module: nothing here may change it."""
    folder = tmp_path_factory.mktemp("data")
    with serve(Settings(model=model_path, device="cpu", gallery=f"sqlite:///{folder}", threads=2)) as service:
        service.client.post("/gallery", files=uploads(GOOD), data={"identity": "a"})
        yield service


# name -> (files, problem, index of the bad file): the same on every route that takes pictures
BAD_FILES: dict[str, tuple[list[bytes], str, int | None]] = {
    "an empty upload": ([GOOD, b""], "empty-image", 1),
    "text": ([b"hello"], "not-an-image", 0),
    "a gif": ([GOOD, PNG, encoded(person(1), "GIF")], "not-an-image", 2),
    "a picture cut short": ([PNG[: len(PNG) // 2]], "truncated-image", 0),
    "a bomb": ([GOOD, encoded(Image.new("1", (4001, 1000)))], "image-too-large", 1),
    "a file over 8 MiB": ([GOOD, bytes(limits.MAX_FILE_BYTES + 1)], "file-too-large", 1),
    "a body over 64 MiB": ([bytes(limits.MAX_FILE_BYTES)] * 9, "body-too-large", None),
    "the first of two bad files": ([GOOD, b"", b"hello"], "empty-image", 1),
}


@pytest.mark.parametrize("route", ["/gallery", "/query", "/embed"])
@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file(served: Served, route: str, name: str) -> None:
    files, slug, index = BAD_FILES[name]
    expect(served.client.post(route, files=uploads(*files)), slug, index)
    assert served.runtime.gallery.crop_count == 1


@pytest.mark.parametrize(("route", "most"), [("/gallery", 64), ("/query", 16), ("/embed", 64)])
def test_too_many_and_too_few_images(served: Served, route: str, most: int) -> None:
    expect(served.client.post(route, files=uploads(*[GOOD] * (most + 1))), "too-many-images", most)
    field, slug = ("identity", "no-images") if route == "/gallery" else ("x", "unknown-field")
    expect(served.client.post(route, files={field: (None, "a")}), slug)
    assert served.runtime.gallery.crop_count == 1


BAD_FIELDS: dict[str, tuple[str, dict[str, Any], str]] = {
    "unknown field at enrolment": ("/gallery", {"indentity": "a"}, "unknown-field"),
    "query option at enrolment": ("/gallery", {"top_k": "3"}, "unknown-field"),
    "label at a query": ("/query", {"track": "a"}, "unknown-field"),
    "any field at embedding": ("/embed", {"identity": "a"}, "unknown-field"),
    "identity with a space": ("/gallery", {"identity": "John Doe"}, "invalid-field"),
    "identity with a line break": ("/gallery", {"identity": "a\n"}, "invalid-field"),
    "identity that climbs folders": ("/gallery", {"identity": "../../etc"}, "invalid-field"),
    "identity beyond ASCII": ("/gallery", {"identity": "Zoë"}, "invalid-field"),
    "identity with NUL": ("/gallery", {"identity": "a\0b"}, "invalid-field"),
    "empty identity": ("/gallery", {"identity": ""}, "invalid-field"),
    "identity of 129 characters": ("/gallery", {"identity": "a" * 129}, "invalid-field"),
    "identity given twice": ("/gallery", {"identity": ["a", "b"]}, "invalid-field"),
    "camera with a slash": ("/gallery", {"camera": "c/3"}, "invalid-field"),
    "camera given twice": ("/gallery", {"camera": ["c1", "c2"]}, "invalid-field"),
    "track with a comma": ("/gallery", {"track": "1,2"}, "invalid-field"),
    "time without offset": ("/gallery", {"captured_at": "2026-05-01T12:00:00"}, "invalid-field"),
    "time in words": ("/gallery", {"captured_at": "yesterday"}, "invalid-field"),
    "time as a number": ("/gallery", {"captured_at": "1767225600"}, "invalid-field"),
    "day that does not exist": ("/gallery", {"captured_at": "2026-02-30T12:00:00Z"}, "invalid-field"),
    "time before the calendar": ("/gallery", {"captured_at": "0001-01-01T00:00:00+23:59"}, "invalid-field"),
    "meta that is no JSON": ("/gallery", {"meta": "{"}, "invalid-field"),
    "meta that is no object": ("/gallery", {"meta": "[1]"}, "invalid-field"),
    "meta over 4 KiB": ("/gallery", {"meta": json.dumps({"a": "x" * 5000})}, "invalid-field"),
    "meta with NaN": ("/gallery", {"meta": '{"a": NaN}'}, "invalid-field"),
    "meta with infinity": ("/gallery", {"meta": '{"a": 1e999}'}, "invalid-field"),
    "meta with half a character": ("/gallery", {"meta": '{"a": "\\ud800"}'}, "invalid-field"),
    "meta too deep": ("/gallery", {"meta": '{"a":' + "[" * 100_000 + "]" * 100_000 + "}"}, "invalid-field"),
    "meta a level too deep": ("/gallery", {"meta": '{"a":' + "[" * 32 + "]" * 32 + "}"}, "invalid-field"),
    "items that are no JSON": ("/gallery", {"items": "[{]"}, "invalid-field"),
    "items that are no array": ("/gallery", {"items": "{}"}, "invalid-field"),
    "items that are no objects": ("/gallery", {"items": "[1]"}, "invalid-field"),
    "fewer items than images": ("/gallery", {"items": "[]"}, "invalid-field"),
    "more items than images": ("/gallery", {"items": "[{},{}]"}, "invalid-field"),
    "another on_error": ("/gallery", {"on_error": "ignore"}, "invalid-field"),
    "a field over 1 MiB": ("/gallery", {"items": " " * (limits.MAX_FIELD_BYTES + 1)}, "invalid-field"),
    "top_k of 0": ("/query", {"top_k": "0"}, "invalid-field"),
    "top_k of 1001": ("/query", {"top_k": "1001"}, "invalid-field"),
    "top_k in words": ("/query", {"top_k": "ten"}, "invalid-field"),
    "crops_per_identity of 101": ("/query", {"crops_per_identity": "101"}, "invalid-field"),
    "crops_per_identity of -1": ("/query", {"crops_per_identity": "-1"}, "invalid-field"),
    "max_distance over 1": ("/query", {"max_distance": "1.1"}, "invalid-field"),
    "max_distance of NaN": ("/query", {"max_distance": "nan"}, "invalid-field"),
    "explain of maybe": ("/query", {"explain": "maybe"}, "invalid-field"),
    "camera of a query with a slash": ("/query", {"camera": ["c1", "c/2"]}, "invalid-field"),
    "since without offset": ("/query", {"since": "2026-05-01T12:00:00"}, "invalid-field"),
    "since after until": (
        "/query",
        {"since": "2026-05-02T00:00:00Z", "until": "2026-05-01T00:00:00Z"},
        "invalid-field",
    ),
}


@pytest.mark.parametrize("name", BAD_FIELDS)
def test_a_bad_field(served: Served, name: str) -> None:
    route, fields, slug = BAD_FIELDS[name]
    body = expect(served.client.post(route, files=uploads(crop(7)), data=fields), slug)
    assert any(field in body["detail"] for field in fields)
    assert served.runtime.gallery.crop_count == 1


@pytest.mark.parametrize(
    ("item", "slug"),
    [
        ({"identity": "no good"}, "invalid-field"),
        ({"name": "a"}, "unknown-field"),
        ({"captured_at": 12}, "invalid-field"),
        ({"meta": {"a": "x" * 5000}}, "invalid-field"),
    ],
)
def test_a_bad_item_names_its_place_and_stops_all(served: Served, item: dict[str, Any], slug: str) -> None:
    items = json.dumps([{"identity": "a"}, item, {}])
    answer = served.client.post("/gallery", files=uploads(crop(7), crop(8), crop(9)), data={"items": items})
    expect(answer, slug, 1)
    assert served.runtime.gallery.crop_count == 1


SHA = "the loaded model's"  # replaced by its SHA-256
UNIT = [1.0] + [0.0] * (DIM - 1)
BAD_JSON: dict[str, tuple[Any, str]] = {
    "no JSON": (b"{", "malformed-body"),
    "not UTF-8": (b'{"crop_ids": ["\xff"]}', "malformed-body"),
    "an array": ([], "invalid-field"),
    "nothing to ask for": ({}, "invalid-field"),
    "two things to ask for": (
        {"crop_ids": ["00000000-0000-0000-0000-000000000000"], "embedding": UNIT, "model_sha256": SHA},
        "invalid-field",
    ),
    "no model": ({"embedding": UNIT}, "invalid-field"),
    "another model": ({"embedding": UNIT, "model_sha256": "0" * 64}, "model-mismatch"),
    "too short": ({"embedding": [1.0], "model_sha256": SHA}, "invalid-field"),
    "empty": ({"embedding": [], "model_sha256": SHA}, "invalid-field"),
    "all zero": ({"embedding": [0] * DIM, "model_sha256": SHA}, "invalid-field"),
    "NaN": (b'{"embedding": [NaN], "model_sha256": "x"}', "invalid-field"),
    "infinity": (b'{"embedding": [1e999], "model_sha256": "x"}', "invalid-field"),
    "words": ({"embedding": ["a"] * DIM, "model_sha256": SHA}, "invalid-field"),
    "unknown member": ({"embedding": UNIT, "model_sha256": SHA, "topk": 3}, "unknown-field"),
    "top_k of 0": ({"embedding": UNIT, "model_sha256": SHA, "top_k": 0}, "invalid-field"),
    "explain without picture": ({"embedding": UNIT, "model_sha256": SHA, "explain": True}, "invalid-field"),
    "no crops": ({"crop_ids": []}, "invalid-field"),
    "too many crops": ({"crop_ids": ["00000000-0000-0000-0000-000000000000"] * 17}, "invalid-field"),
    "a crop nobody enrolled": ({"crop_ids": ["00000000-0000-0000-0000-000000000000"]}, "unknown-crop"),
    "a crop id that is none": ({"crop_ids": ["../etc"]}, "unknown-crop"),
    "over 1 MiB": (b" " * (limits.MAX_JSON_BYTES + 1), "body-too-large"),
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_a_bad_json_query(served: Served, name: str) -> None:
    body, slug = BAD_JSON[name]
    if isinstance(body, dict) and body.get("model_sha256") == SHA:
        body = {**body, "model_sha256": served.runtime.info.sha256}
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = served.client.post("/query", content=content, headers={"Content-Type": "application/json"})
    expect(answer, slug)


def part(name: str, data: bytes, extra: str = "") -> bytes:
    return f'--b\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'.encode() + data + b"\r\n"


MULTIPART = "multipart/form-data; boundary=b"
IMAGE = part("images", GOOD, '; filename="a.png"')
BAD_BODIES: dict[str, tuple[str, bytes, str]] = {
    "no type": ("", b"", "unsupported-media-type"),
    "a bare picture": ("image/png", GOOD, "unsupported-media-type"),
    "a form without files": ("application/x-www-form-urlencoded", b"identity=a", "unsupported-media-type"),
    "no boundary": ("multipart/form-data", IMAGE + b"--b--\r\n", "malformed-body"),
    "another boundary": ("multipart/form-data; boundary=c", IMAGE + b"--b--\r\n", "malformed-body"),
    "a boundary too long": ("multipart/form-data; boundary=" + "b" * 300, b"", "malformed-body"),
    "nothing": (MULTIPART, b"", "malformed-body"),
    "garbage": (MULTIPART, b"garbage", "malformed-body"),
    "no last boundary": (MULTIPART, IMAGE, "malformed-body"),
    "cut in the picture": (MULTIPART, IMAGE[:-50], "malformed-body"),
    "no part": (MULTIPART, b"--b--\r\n", "no-images"),
    "a part without name": (MULTIPART, b"--b\r\nContent-Type: a/b\r\n\r\nx\r\n--b--\r\n", "malformed-body"),
    "header without end": (MULTIPART, b"--b\r\nX: " + b"x" * 100_000, "malformed-body"),
}


@pytest.mark.parametrize("route", ["/gallery", "/query", "/embed"])
@pytest.mark.parametrize("name", BAD_BODIES)
def test_a_bad_body(served: Served, route: str, name: str) -> None:
    content_type, content, slug = BAD_BODIES[name]
    headers = {"Content-Type": content_type} if content_type else {}
    expect(served.client.post(route, content=content, headers=headers), slug)
    assert served.runtime.gallery.crop_count == 1


def test_text_that_is_no_utf8_is_refused(served: Served) -> None:
    body = IMAGE + part("identity", b"\xff") + b"--b--\r\n"
    expect(served.client.post("/gallery", content=body, headers={"Content-Type": MULTIPART}), "invalid-field")


def test_too_many_fields_are_refused(served: Served) -> None:
    body = part("identity", b"a") * (limits.MAX_FIELDS + limits.MAX_IMAGES + 1) + IMAGE + b"--b--\r\n"
    answer = served.client.post("/gallery", content=body, headers={"Content-Type": MULTIPART})
    expect(answer, "malformed-body")


def test_a_body_of_undeclared_length_is_counted(served: Served) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(12):
            yield part("images", bytes(limits.MAX_FILE_BYTES - 1), '; filename="a.png"')

    answer = served.client.post("/embed", content=chunks(), headers={"Content-Type": MULTIPART})
    expect(answer, "body-too-large")


NOWHERE: dict[str, tuple[str, str, str]] = {
    "no such page": ("GET", "/galery", "not-found"),
    "a slash too many": ("GET", "/gallery/", "not-found"),
    "no such crop": ("GET", "/gallery/00000000-0000-0000-0000-000000000000", "unknown-crop"),
    "no such crop to delete": ("DELETE", "/gallery/00000000-0000-0000-0000-000000000000", "unknown-crop"),
    "no such crop's image": ("GET", "/gallery/00000000-0000-0000-0000-000000000000/image", "unknown-crop"),
    "a crop id that is none": ("GET", "/gallery/..%2f..%2fetc", "not-found"),
    "a crop id of another alphabet": ("GET", "/gallery/%E2%80%AE", "unknown-crop"),
    "a method unknown to a page": ("PUT", "/gallery", "method-not-allowed"),
    "a query by GET": ("GET", "/query", "method-not-allowed"),
    "limit of 0": ("GET", "/gallery?limit=0", "invalid-field"),
    "limit of 1001": ("GET", "/gallery?limit=1001", "invalid-field"),
    "a cursor made up": ("GET", "/gallery?cursor=abc", "invalid-cursor"),
    "an unknown parameter": ("GET", "/gallery?page=2", "unknown-field"),
    "a parameter where there is none": ("GET", "/model?x=1", "unknown-field"),
    "options of a query in the address": ("POST", "/query?top_k=3", "unknown-field"),
    "a limit given twice": ("GET", "/gallery?limit=1&limit=2", "invalid-field"),
    "a cursor given twice": ("GET", "/gallery?cursor=a&cursor=a", "invalid-field"),
    "since after until": ("GET", "/gallery?since=2026-05-02T00:00:00Z&until=2026-05-01T00:00:00Z", "invalid-field"),
    "a time without offset": ("GET", "/gallery?since=2026-05-02T00:00:00", "invalid-field"),
    "a bad camera": ("GET", "/gallery?camera=c1&camera=c%2F2", "invalid-field"),
}


@pytest.mark.parametrize("name", NOWHERE)
def test_a_bad_address(served: Served, name: str) -> None:
    method, address, slug = NOWHERE[name]
    answer = served.client.request(method, address)
    expect(answer, slug)
    if answer.status_code == 405:
        assert answer.headers["Allow"] == {"/gallery": "GET, HEAD, POST", "/query": "POST"}[address]
    assert served.runtime.gallery.crop_count == 1


def test_the_service_is_as_good_as_before(served: Served) -> None:
    """After every bad file and body: alive, and without a place lost in the queue."""
    for files, slug, index in BAD_FILES.values():
        expect(served.client.post("/query", files=uploads(*files)), slug, index)
    for content_type, content, slug in BAD_BODIES.values():
        headers = {"Content-Type": content_type} if content_type else {}
        expect(served.client.post("/query", content=content, headers=headers), slug)
    deadline = time.monotonic() + 5
    while served.runtime.worker._admitted and time.monotonic() < deadline:
        time.sleep(0.01)
    assert served.runtime.worker._admitted == 0
    assert served.client.get("/readyz").status_code == 200
    assert served.client.post("/query", files=uploads(GOOD)).json()["matches"][0]["identity"] == "a"


SENTENCES: dict[str, tuple[dict[str, str], str]] = {
    "a name": ({"identity": "John Doe"}, "identity: must be 1-128 of the letters A-Z a-z, digits and . _ : -."),
    "deep meta": ({"meta": '{"a":' + "[" * 40 + "]" * 40 + "}"}, "meta: meta nests too deep, 32 levels are allowed."),
    "very deep meta": (
        {"meta": '{"a":' + "[" * 100_000 + "]" * 100_000 + "}"},
        "meta: this nests too deep, 32 levels are allowed.",
    ),
    "very deep items": ({"items": "[" * 100_000}, "items: this nests too deep, 32 levels are allowed."),
    "a giant integer": (
        {"items": '[{"meta": {"a": ' + "9" * 5000 + "}}]"},
        "items: this has an integer of too many digits; write it as text.",
    ),
    "no JSON": ({"meta": "{"}, "meta: this is not JSON; check quotes and brackets."),
}


@pytest.mark.parametrize("name", SENTENCES)
def test_the_sentence_says_what_is_wrong(served: Served, name: str) -> None:
    fields, sentence = SENTENCES[name]
    answer = served.client.post("/gallery", files=uploads(crop(7)), data=fields)
    assert expect(answer, "invalid-field")["detail"] == sentence


LONG = "x" * 1000
ECHOES: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "a field": ("POST", "/gallery", {"files": uploads(GOOD), "data": {LONG: "a"}}, "unknown-field"),
    "a member of an item": (
        "POST",
        "/gallery",
        {"files": uploads(GOOD), "data": {"items": json.dumps([{LONG: 1}])}},
        "unknown-field",
    ),
    "a parameter": ("GET", f"/model?{LONG}=1", {}, "unknown-field"),
    "a parameter given twice": ("GET", f"/gallery?{LONG}=1&{LONG}=2", {}, "invalid-field"),
    "a crop id": ("GET", f"/gallery/{LONG}", {}, "unknown-crop"),
    "a crop id to ask for": ("POST", "/query", {"json": {"crop_ids": [LONG]}}, "unknown-crop"),
    "a member of a query": ("POST", "/query", {"json": {LONG: 1, "crop_ids": ["x"]}}, "unknown-field"),
}


@pytest.mark.parametrize("name", ECHOES)
def test_a_detail_repeats_little_of_what_was_sent(served: Served, name: str) -> None:
    method, address, content, slug = ECHOES[name]
    answer = served.client.request(method, address, **content)
    body = expect(answer, slug, 0 if "item" in name else None)
    assert 100 < body["detail"].count("x") <= 202  # the sentence itself has one or two


def test_a_405_names_every_method_of_the_address(served: Served) -> None:
    answer = served.client.put("/gallery/00000000-0000-0000-0000-000000000000")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "DELETE, GET, HEAD, PATCH")
