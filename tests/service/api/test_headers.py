"""What answers tell a browser; HEAD; and methods that no route knows."""

from __future__ import annotations

import base64
import hashlib
import html
import http.client
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.api.reference import operations_of
from service.settings import Settings
from tests.drawn_crops import crop, uploads
from tests.service.api.canonical_error import expect
from tests.serving import Served, serve


@pytest.fixture(scope="module")
def served(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One service for all of this module."""
    folder = tmp_path_factory.mktemp("data")
    with serve(Settings(model=model_path, device="cpu", gallery=f"sqlite:///{folder}", threads=2)) as service:
        yield service


ANSWERS: dict[str, tuple[str, str, int]] = {
    "data": ("GET", "/gallery", 200),
    "a probe": ("GET", "/livez", 200),
    "nothing there": ("GET", "/nowhere", 404),
    "a wrong method": ("PUT", "/gallery", 405),
    "a bad parameter": ("GET", "/gallery?x=1", 422),
    "a foreign page": ("POST", "/embed", 403),
    "the description": ("GET", "/openapi.json", 200),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_every_answer_may_neither_be_framed_nor_guessed_nor_kept(served: Served, name: str) -> None:
    method, path, status = ANSWERS[name]
    headers = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
    answer = served.client.request(method, path, headers=headers if method == "POST" else {})
    assert answer.status_code == status
    policy = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    assert answer.headers["Content-Security-Policy"] == policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert answer.headers["Cache-Control"] == "no-store"


def test_no_other_origin_may_read_an_answer(served: Served) -> None:
    foreign = {"Origin": "https://evil.example", "Access-Control-Request-Method": "GET"}
    for method in ("GET", "HEAD", "OPTIONS"):
        answer = served.client.request(method, "/gallery", headers=foreign)
        assert not [name for name in answer.headers if name.lower().startswith("access-control-")]
    expect(served.client.options("/gallery", headers=foreign), "method-not-allowed")


def test_the_documentation_runs_nothing_and_needs_no_network(served: Served) -> None:
    page = served.client.get("/docs")
    rules = dict(rule.strip().partition(" ")[::2] for rule in page.headers["Content-Security-Policy"].split(";"))
    assert rules["default-src"] == "'none'"
    assert {"script-src", "connect-src"}.isdisjoint(rules)
    [style] = re.findall(r"<style>(.*?)</style>", page.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert rules["style-src"] == f"'sha256-{digest}'"
    assert "<script" not in page.text
    assert " style=" not in page.text
    assert set(re.findall(r'(?:src|href)="([^"#]+)"', page.text)) == {"openapi.json", "data:,"}
    assert page.headers["X-Frame-Options"] == "DENY"


def test_the_documentation_says_all_that_the_description_says(served: Served) -> None:
    page = html.unescape(served.client.get("/docs").text)
    schema = served.client.get("/openapi.json").json()
    for path, methods in schema["paths"].items():
        for method, said in methods.items():
            assert f'<span class="method">{method.upper()}</span> <code>{path}</code></h2>' in page
            for parameter in said.get("parameters", []):
                assert f"<code>{parameter['name']}</code>" in page
            for status in said["responses"]:
                assert f"<b>{status}</b>" in page
    anchors = re.findall(r'id="([^"]+)"', page)
    assert len(anchors) == len(set(anchors))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(anchors)
    assert "<code>queue-full</code>" in page
    for name, said in schema["components"]["schemas"].items():
        assert not said.get("properties") or f"<h3>{name}</h3>" in page


def test_the_documentation_is_written_for_people(served: Served) -> None:
    page = html.unescape(served.client.get("/docs").text)
    assert "`" not in page
    assert "<code>POST /gallery</code>, then ask" in page
    assert page.count("openapi.json") == 2  # its link, and the words of that
    assert 'href="openapi.json"' in page
    operations = operations_of(served.client.get("/openapi.json").json())
    asked = [field for one in operations for body in one.bodies for field in body.fields]
    assert asked
    assert [field.name for field in asked if not field.meaning] == []


def test_head_is_get_without_the_body(served: Served) -> None:
    for path in ("/livez", "/gallery", "/model", "/docs", "/openapi.json", "/"):
        got, head = served.client.get(path), served.client.head(path)
        assert (head.status_code, head.content) == (got.status_code, b"")
        for name in ("content-type", "content-length", "location"):
            assert head.headers.get(name) == got.headers.get(name), (path, name)
    assert served.client.head("/nowhere").status_code == 404
    assert served.client.head("/gallery", params={"x": "1"}).status_code == 422
    refused = served.client.head("/embed")
    assert (refused.status_code, refused.headers["Allow"]) == (405, "POST")
    assert "HEAD" in served.client.put("/gallery").headers["Allow"]


@pytest.mark.parametrize("method", ["TRACE", "OPTIONS", "PUT", "PROPFIND", "CONNECT"])
def test_methods_that_no_route_knows_are_problems(served: Served, method: str) -> None:
    for path in ("/gallery", "/livez", "/docs"):
        answer = served.client.request(method, path, headers={"X-Echo": "mirrored"})
        body = expect(answer, "method-not-allowed")
        assert "mirrored" not in str(body)
        assert "GET" in answer.headers["Allow"]


def test_a_head_leaves_the_connection_usable(served: Served) -> None:
    url = httpx.URL(served.url)
    connection = http.client.HTTPConnection(url.host, url.port, timeout=10)
    try:
        for _ in range(2):
            connection.request("HEAD", "/model")
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (200, b"")
        connection.request("GET", "/livez")
        assert connection.getresponse().read() == b'{"status":"alive"}'
    finally:
        connection.close()


def test_pictures_are_answered_with_the_same_care(served: Served) -> None:
    (result,) = served.client.post("/gallery", files=uploads(crop(1))).json()["results"]
    picture = served.client.get(f"/gallery/{result['crop_id']}/image")
    assert picture.headers["Content-Type"] == "image/jpeg"
    assert picture.headers["X-Content-Type-Options"] == "nosniff"
    assert picture.headers["Cache-Control"] == "no-store"
