from __future__ import annotations

import io
import json
import re
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from email import message_from_bytes
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from service.client import Resight
from service.client.answers import NotResight, ResightError, Unreachable
from service.client.calls import page_call, query_call

MODEL = {"name": "tiny", "sha256": "ab" * 32}
EMPTY_RANKING = {
    "verdict": "unknown",
    "matches": [],
    "searched": 0,
    "exact": True,
    "model": MODEL,
    "timings_ms": {},
}


class Pauses(list[float]):
    """The pauses that the client made, without making them."""


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Pauses:
    made = Pauses()
    monkeypatch.setattr("service.client.connection.time.sleep", made.append)
    return made


def scripted(*outcomes: httpx.Response | Exception) -> tuple[Resight, list[httpx.Request]]:
    """A client whose requests meet these outcomes in turn, and the requests it sent."""
    sent: list[httpx.Request] = []
    coming = iter(outcomes)

    def answer(request: httpx.Request) -> httpx.Response:
        request.read()
        sent.append(request)
        outcome = next(coming)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return Resight("http://resight.test", transport=httpx.MockTransport(answer)), sent


def ok(body: Any = None) -> httpx.Response:
    return httpx.Response(200, json=EMPTY_RANKING if body is None else body)


def problem(status: int, headers: dict[str, str] | None = None, **members: object) -> httpx.Response:
    body = {"type": "/problems/x", "title": "A title", "status": status, "detail": "A detail.", **members}
    return httpx.Response(status, content=json.dumps(body), headers=headers)


def parts(request: httpx.Request) -> list[tuple[str, str | None, bytes]]:
    """(field, file name, content) of a multipart request, by the standard library's parser."""
    head = f"Content-Type: {request.headers['Content-Type']}\r\n\r\n".encode()
    found = []
    for part in message_from_bytes(head + request.content).get_payload():
        assert not isinstance(part, str)
        name = part.get_param("name", header="Content-Disposition")
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        found.append((str(name), part.get_filename(), content))
    return found


def test_busy_is_waited_for_as_long_as_it_says(pauses: Pauses) -> None:
    client, sent = scripted(problem(429, {"Retry-After": "3"}), problem(503, {"Retry-After": "0"}), ok())
    assert client.query(b"image").verdict == "unknown"
    assert pauses == [3.0, 0.0]
    assert len({request.content for request in map(_without_boundary, sent)}) == 1


def _without_boundary(request: httpx.Request) -> httpx.Request:
    boundary = request.headers["Content-Type"].partition("boundary=")[2].encode()
    return httpx.Request("POST", "/", content=request.content.replace(boundary, b""))


def test_refused_connections_are_tried_again_with_growing_pauses(pauses: Pauses) -> None:
    client, _ = scripted(*[httpx.ConnectError("refused")] * 3, ok())
    assert client.query(b"image").matches == ()
    assert pauses == [0.25, 0.5, 1.0]


def test_trying_again_is_bounded(pauses: Pauses) -> None:
    client, sent = scripted(*[httpx.ConnectError("refused")] * 9)
    with pytest.raises(Unreachable, match=r"Nothing answers at http://resight\.test") as caught:
        client.query(b"image")
    assert len(sent) == 5
    assert len(pauses) == 4
    assert caught.value.status is None


def test_a_busy_service_ends_as_its_own_problem(pauses: Pauses) -> None:
    client, sent = scripted(*[problem(429, type="/problems/queue-full")] * 9)
    with pytest.raises(ResightError) as caught:
        client.query(b"image")
    assert len(sent) == 5
    assert caught.value.problem.type == "/problems/queue-full"
    assert pauses == [0.25, 0.5, 1.0, 2.0]


def test_no_pause_is_longer_than_a_minute(pauses: Pauses) -> None:
    client, sent = scripted(problem(503, {"Retry-After": "3600"}))
    with pytest.raises(ResightError):
        client.query(b"image")
    assert (len(sent), pauses) == (1, [])


def test_nothing_is_sent_again_after_the_deadline(pauses: Pauses) -> None:
    busy = [problem(429, {"Retry-After": "20"})] * 9
    transport = httpx.MockTransport(lambda request: busy.pop())
    with Resight("http://resight.test", transport=transport, deadline=10) as client, pytest.raises(ResightError):
        client.query(b"image")
    assert (len(busy), pauses) == (8, [])


@pytest.mark.parametrize("fault", [httpx.ReadError("reset"), httpx.RemoteProtocolError("closed")])
def test_a_broken_connection_is_repeated_but_not_for_delete(pauses: Pauses, fault: Exception) -> None:
    client, sent = scripted(fault, ok())
    client.query(b"image")
    assert len(sent) == 2
    client, sent = scripted(fault, httpx.Response(204))
    with pytest.raises(Unreachable, match="broke"):
        client.delete("id")
    assert len(sent) == 1


def test_what_may_be_done_by_half_is_not_sent_again(pauses: Pauses) -> None:
    client, sent = scripted(problem(503, {"Retry-After": "0"}), httpx.Response(204))
    with pytest.raises(ResightError):
        client.delete("id")
    assert len(sent) == 1
    client, sent = scripted(problem(429, {"Retry-After": "0"}), httpx.Response(204))
    client.delete("id")
    assert len(sent) == 2


def test_an_answer_that_takes_too_long_is_not_asked_for_again(pauses: Pauses) -> None:
    client, sent = scripted(httpx.ReadTimeout("slow"))
    with pytest.raises(ResightError, match="did not answer in time"):
        client.query(b"image")
    assert len(sent) == 1


def test_readiness_is_asked_once_and_503_is_an_answer(pauses: Pauses) -> None:
    client, _ = scripted(problem(503, {"Retry-After": "5"}, reasons=["The engine stopped."]))
    readiness = client.ready()
    assert (readiness.ready, readiness.reason) == (False, "A detail. The engine stopped.")
    client, sent = scripted(httpx.ConnectError("refused"))
    with pytest.raises(Unreachable):
        client.ready()
    assert (len(sent), pauses) == (1, [])


def test_other_problems_are_raised_at_once_with_everything_they_say(pauses: Pauses) -> None:
    client, sent = scripted(problem(422, index=3, instance="r-1"))
    with pytest.raises(ResightError, match=r"^A detail\.$") as caught:
        client.enrol([b"image"])
    refused = caught.value.problem
    assert (refused.type, refused.title, refused.status, refused.detail, refused.index, refused.instance) == (
        "/problems/x",
        "A title",
        422,
        "A detail.",
        3,
        "r-1",
    )
    assert len(sent) == 1


def test_an_error_of_something_else_is_a_problem_too() -> None:
    client, _ = scripted(httpx.Response(502, html="<h1>Bad gateway</h1>"))
    with pytest.raises(ResightError) as caught:
        client.model()
    assert (caught.value.problem.status, caught.value.problem.title) == (502, "Bad Gateway")


@pytest.mark.parametrize("body", [b"<h1>Welcome</h1>", b"[]", b"{}", b'"text"', b'{"results": 1, "model": {}}'])
def test_a_service_that_is_not_resight_is_recognised(body: bytes) -> None:
    client, _ = scripted(httpx.Response(200, content=body))
    with pytest.raises(NotResight, match="did not answer as Resight does"):
        client.enrol([b"image"])


@pytest.mark.parametrize("body", [b"<h1>Welcome</h1>", b"[]", b"{}", b'{"status": "ready"}', b"[" * 100_000])
def test_readiness_recognises_it_too(body: bytes) -> None:
    for status in (200, 404):
        client, _ = scripted(httpx.Response(status, content=body))
        with pytest.raises(NotResight):
            client.ready()
    client, _ = scripted(httpx.Response(503, content=body))
    assert client.ready().reason == "503 Service Unavailable"  # a proxy may stand before it
    client, _ = scripted(problem(403, type="/problems/forbidden-origin"))
    with pytest.raises(ResightError, match=r"A detail\.") as caught:
        client.ready()
    assert not isinstance(caught.value, NotResight)


def test_what_is_sent_for_enrolling(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"from a file")
    client, sent = scripted(ok({"results": [], "model": MODEL}))
    client.enrol(
        [b"bytes", path, str(path)],
        identity="0042",
        captured_at=datetime(2026, 11, 1, 10, tzinfo=UTC),
        meta={"source": "ä"},
        items=[{"camera": "c1", "captured_at": datetime(2026, 11, 2, tzinfo=UTC), "track": None}, {}, {}],
        on_error="skip",
    )
    found = parts(sent[0])
    assert [part for part in found if part[0] == "images"] == [
        ("images", "image-0", b"bytes"),
        ("images", "a.jpg", b"from a file"),
        ("images", "a.jpg", b"from a file"),
    ]
    fields = {name: content.decode() for name, file, content in found if file is None}
    assert json.loads(fields.pop("meta")) == {"source": "ä"}
    assert json.loads(fields.pop("items")) == [
        {"camera": "c1", "captured_at": "2026-11-02T00:00:00+00:00"},
        {},
        {},
    ]
    assert fields == {"identity": "0042", "captured_at": "2026-11-01T10:00:00+00:00", "on_error": "skip"}


def test_a_pillow_image_is_sent_upright_and_without_loss() -> None:
    picture = Image.new("RGB", (2, 3), (10, 20, 30))
    picture.putpixel((1, 0), (200, 100, 0))
    picture.getexif()[0x0112] = 6  # rotated by 90°
    client, sent = scripted(ok({"results": [], "model": MODEL}), ok({"results": [], "model": MODEL}))
    client.enrol(picture)
    [(_, name, content)] = parts(sent[0])
    received = Image.open(io.BytesIO(content))
    assert (name, received.format, received.size) == ("image-0.png", "PNG", (3, 2))
    assert received.getpixel((2, 1)) == (200, 100, 0)
    client.enrol([picture.convert("CMYK")])
    assert Image.open(io.BytesIO(parts(sent[1])[0][2])).mode == "RGB"


def test_what_is_sent_for_a_query() -> None:
    call = query_call(
        b"image",
        top_k=3,
        cameras="c1",
        exclude_cameras=["c2", "c3"],
        since="2026-11-01T00:00:00Z",
        identity="7",
        max_distance=0.25,
        explain=True,
    )
    assert call.form == {
        "top_k": "3",
        "crops_per_identity": "5",
        "camera": ["c1"],
        "exclude_camera": ["c2", "c3"],
        "since": "2026-11-01T00:00:00Z",
        "identity": "7",
        "max_distance": "0.25",
        "explain": "true",
    }


def test_a_time_without_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        page_call(since=datetime(2026, 11, 1))


def test_pages_are_followed_to_the_end() -> None:
    crop = dict.fromkeys(("identity", "camera", "captured_at", "track", "meta"))
    first = {"crops": [{"crop_id": "a", "enrolled_at": "2026-11-01T00:00:00Z", **crop}], "next_cursor": "x y"}
    last = {"crops": [{"crop_id": "b", "enrolled_at": "2026-11-01T00:00:00Z", **crop}], "next_cursor": None}
    client, sent = scripted(ok(first), ok(last))
    found = client.crops(cameras=["c1", "c2"], page_size=1)
    assert next(found).crop_id == "a"
    assert len(sent) == 1
    assert [one.crop_id for one in found] == ["b"]
    assert sent[1].url.params.multi_items() == [
        ("limit", "1"),
        ("cursor", "x y"),
        ("camera", "c1"),
        ("camera", "c2"),
    ]


def test_an_id_cannot_leave_its_path() -> None:
    client, sent = scripted(problem(404))
    with pytest.raises(ResightError):
        client.crop("../model?x")
    assert sent[0].url.raw_path == b"/gallery/..%2Fmodel%3Fx"


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://host", "http://", "http://host:port", "host", "http://["])
def test_what_is_no_url_of_a_service_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(url))):
        Resight(url)


@pytest.mark.parametrize("url", ["http://host:99999", "http://host:0", "http://[zz]", "http://" + "x" * 64])
def test_ports_brackets_and_names_are_looked_at(url: str) -> None:
    with pytest.raises(ValueError, match="is no URL"):
        Resight(url)


def test_nothing_listening_is_unreachable() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with Resight(url + "/", retries=0) as client, pytest.raises(Unreachable, match=re.escape(url)):
            client.model()


@pytest.mark.parametrize("ask", [Resight.image, Resight.attention])
def test_a_page_is_no_picture(ask: Callable[[Resight, str], bytes]) -> None:
    other, _ = scripted(httpx.Response(200, html="<h1>Welcome</h1>"))
    with pytest.raises(NotResight, match="did not answer as Resight does"):
        ask(other, "id")
