from __future__ import annotations

import io
import json
import re
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from email import message_from_bytes
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from service.client import Resight
from service.client.answers import NotResight, ResightError, Unreachable
from service.client.calls import page_call, query_call
from tests.drawn_crops import crop, encoded, person
from tests.serving import Served

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


@pytest.fixture
def resight(service: Served) -> Iterator[Resight]:
    """The typed client of a running service with an empty gallery."""
    with Resight(service.url) as client:
        yield client


def test_enrolling_and_asking_the_real_service(resight: Resight, tmp_path: Path) -> None:
    path = tmp_path / "probe.png"
    path.write_bytes(crop(1, view=1))
    when = datetime(2026, 11, 1, 10, tzinfo=UTC)
    enrolled = resight.enrol([crop(1), crop(9)], camera="c1", items=[{"identity": "1"}, {"identity": "9"}])
    assert [(one.index, one.status, one.identity, one.camera) for one in enrolled.results] == [
        (0, "created", "1", "c1"),
        (1, "created", "9", "c1"),
    ]
    resight.enrol(person(1, view=2), identity="1", camera="c2", captured_at=when, track="t", meta={"source": "x"})

    ranking = resight.query(path, top_k=2, explain=True)
    assert ranking.verdict == "match"
    assert [match.identity for match in ranking.matches] == ["1", "9"]
    assert (ranking.searched, ranking.exact, ranking.model) == (3, True, enrolled.model)
    best = ranking.matches[0]
    assert best.distance == pytest.approx(1 - best.similarity)
    assert {hit.camera for hit in best.crops} == {"c1", "c2"}
    assert set(ranking.timings_ms) == {"parse", "decode", "queue", "inference", "search"}
    attention = ranking.attention
    assert attention is not None
    assert attention.weights.shape == (1, attention.h, attention.w)
    assert attention.weights.sum() == pytest.approx(1, abs=1e-5)

    narrowed = resight.query([path], exclude_cameras=["c1"], since=when, identity="1", max_distance=1)
    assert [(match.camera, match.captured_at) for match in narrowed.matches] == [("c2", when)]
    assert narrowed.attention is None


def test_crops_are_listed_fetched_and_deleted(resight: Resight) -> None:
    results = resight.enrol([crop(number) for number in range(5)], camera="c1").results
    resight.enrol(crop(6), identity="6", camera="c2", meta={"source": "six.png"})
    ids = [result.crop_id for result in results]
    assert [one.crop_id for one in resight.crops(cameras="c1", unidentified=True, page_size=2)] == ids
    [six] = resight.crops(identity="6")
    assert (six.meta, six.camera, six.captured_at) == ({"source": "six.png"}, "c2", None)
    assert six.enrolled_at.tzinfo is not None
    assert resight.crop(six.crop_id) == six
    resight.delete(six.crop_id)
    with pytest.raises(ResightError) as caught:
        resight.crop(six.crop_id)
    assert (caught.value.status, caught.value.problem.type) == (404, "/problems/unknown-crop")


def test_embeddings_are_unit_vectors_in_order(resight: Resight) -> None:
    embeddings = resight.embed([crop(1), crop(2), crop(1)])
    assert embeddings.dtype == np.float32
    assert embeddings.shape[0] == 3
    assert np.linalg.norm(embeddings, axis=1) == pytest.approx([1, 1, 1], abs=1e-5)
    assert np.array_equal(embeddings[0], embeddings[2])
    assert not np.allclose(embeddings[0], embeddings[1], atol=0.1)


def test_a_pillow_image_means_what_its_file_means(resight: Resight) -> None:
    embeddings = resight.embed([person(3), encoded(person(3), "PNG"), person(3).convert("P")])
    assert np.array_equal(embeddings[0], embeddings[1])
    assert embeddings[0] @ embeddings[2] > 0.99


def test_a_bad_image_fails_alone_or_refuses_all(resight: Resight) -> None:
    with pytest.raises(ResightError) as caught:
        resight.enrol([crop(1), b"no image"])
    assert (caught.value.status, caught.value.problem.index) == (422, 1)
    assert list(resight.crops()) == []
    good, bad = resight.enrol([crop(1), b"no image"], on_error="skip").results
    assert (good.status, good.problem) == ("created", None)
    assert (bad.status, bad.crop_id) == ("failed", None)
    assert bad.problem is not None
    assert (bad.problem.type, bad.problem.index) == ("/problems/not-an-image", 1)


def test_what_serves_and_whether_it_can(resight: Resight, service: Served) -> None:
    model = resight.model()
    assert (model.name, model.sha256) == (service.runtime.info.name, service.runtime.info.sha256)
    assert model.licence_notice == "Free to use; not trained on anybody."
    assert resight.ready().ready
    service.runtime.worker.stop()
    readiness = resight.ready()
    assert not readiness.ready
    assert readiness.reason is not None
    assert "inference thread" in readiness.reason


def test_a_picture_comes_as_it_is_kept(resight: Resight) -> None:
    [stored] = resight.enrol(crop(1)).results
    assert stored.crop_id is not None
    assert Image.open(io.BytesIO(resight.image(stored.crop_id))).format == "JPEG"
    with pytest.raises(ResightError) as caught:
        resight.image("00000000-0000-0000-0000-000000000000")
    assert caught.value.problem.type == "/problems/unknown-crop"
    other, _ = scripted(httpx.Response(200, html="<h1>Welcome</h1>"))
    with pytest.raises(ResightError, match="did not answer as Resight does"):
        other.image("id")


def test_attention_comes_as_a_picture(resight: Resight) -> None:
    [stored] = resight.enrol(crop(1)).results
    assert stored.crop_id is not None
    assert Image.open(io.BytesIO(resight.attention(stored.crop_id))).format == "PNG"
    other, _ = scripted(httpx.Response(200, html="<h1>Welcome</h1>"))
    with pytest.raises(NotResight):
        other.attention("id")


def test_every_read_can_ask_for_all_that_was_acknowledged(resight: Resight) -> None:
    [stored] = resight.enrol(crop(1), identity="1").results
    assert stored.crop_id is not None
    assert resight.query(crop(1), consistency="strong").searched == 1
    assert resight.crop(stored.crop_id, consistency="strong").identity == "1"
    assert resight.image(stored.crop_id, consistency="strong")
    assert resight.identity("1", consistency="strong").crops == 1
    assert len(list(resight.crops(consistency="strong"))) == 1
    assert len(list(resight.identities(consistency="strong"))) == 1


def test_crops_and_embeddings_ask_too(resight: Resight) -> None:
    first, second = resight.enrol([crop(1), crop(9)], items=[{"identity": "1"}, {"identity": "9"}]).results
    assert first.crop_id is not None
    assert second.crop_id is not None
    for ids in (second.crop_id, [second.crop_id, second.crop_id]):
        found = resight.query(crop_ids=ids, top_k=1, crops_per_identity=0, max_distance=0.5)
        assert [(match.identity, match.crops) for match in found.matches] == [("9", ())]
    [embedding], model = resight.embed(crop(1)), resight.model().sha256
    for vector in (embedding, embedding.tolist()):
        found = resight.query(embedding=vector, model_sha256=model, exclude_cameras=["c1"], exact=True)
        assert found.matches[0].identity == "1"
    with pytest.raises(ResightError) as caught:
        resight.query(embedding=embedding, model_sha256="0" * 64)
    assert caught.value.problem.type == "/problems/model-mismatch"


@pytest.mark.parametrize("probes", [{}, {"images": b"x", "crop_ids": "id"}, {"crop_ids": ["id"], "embedding": [1.0]}])
def test_a_query_has_one_kind_of_probe(probes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="either images"):
        query_call(**probes)


def test_no_proxy_stands_before_this_machine(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as nowhere:
        nowhere.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{nowhere.getsockname()[1]}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        with Resight(service.url, retries=0) as client:
            assert client.ready().ready
        with Resight("http://resight.test", retries=0) as other, pytest.raises(Unreachable):
            other.model()
