"""More than the service can take: refused at once, in images and in bytes, and forgotten afterwards."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from service.api import searching
from service.api.limits import REQUEST_BYTES, TAR, TAR_BYTES, Uploads
from service.inference.images import decode_and_keep
from service.settings import Settings
from tests.drawn_crops import crop, uploads
from tests.engine_doubles import FaultyEngine
from tests.eventually import until
from tests.raw_http import PART, answer_of, head, opened
from tests.service.api.archives import archive, in_pieces, send
from tests.service.api.canonical_error import expect
from tests.serving import serve


def test_a_full_queue_refuses_before_the_body_is_sent(make_settings: Callable[..., Settings]) -> None:
    with serve(make_settings(queue_limit=64)) as service, ThreadPoolExecutor() as pool:
        engine = FaultyEngine(service.runtime.info)
        engine.gate.clear()
        service.runtime.worker.engine = engine
        waiting = pool.submit(httpx.post, f"{service.url}/embed", files=uploads(*[crop(1)] * 64), timeout=30)
        assert engine.entered.wait(10)
        with opened(service.url) as client:
            client.sendall(head("/query", length=2**20, expect="100-continue"))
            status, headers, problem = answer_of(client)
        assert (status, problem["type"]) == (429, "/problems/queue-full")
        assert int(headers["retry-after"]) >= 1
        expect(service.client.post("/gallery", content=b"", headers={"Content-Type": TAR}), "queue-full")
        expect(service.client.post("/erasures", files=uploads(crop(1))), "unsupported-media-type")  # takes no pictures
        assert service.client.post("/query", json={"crop_ids": ["0" * 32]}).status_code == 404  # needs no model
        engine.gate.set()
        assert waiting.result().status_code == 200


def test_refusals_do_not_wait_for_pictures_that_are_decoded(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, decoding = threading.Event(), threading.Semaphore(0)

    def slow(*arguments: Any) -> Any:
        decoding.release()
        assert gate.wait(30)
        return decode_and_keep(*arguments)

    monkeypatch.setattr("service.api.pictures.decode_and_keep", slow)
    with serve(make_settings(queue_limit=64)) as service, ThreadPoolExecutor() as pool:
        try:
            waiting = pool.submit(httpx.post, f"{service.url}/embed", files=uploads(*[crop(1)] * 64), timeout=30)
            assert all(decoding.acquire(timeout=10) for _ in range(2))  # both threads that decode are taken
            expect(service.client.post("/embed", files=uploads(crop(2))), "queue-full")
            assert service.client.get("/readyz").status_code == 200
        finally:
            gate.set()
        assert waiting.result().status_code == 200


def test_all_bodies_together_have_a_limit(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Uploads(limit=2 * REQUEST_BYTES + 100_000)
    monkeypatch.setattr("service.app.Uploads", lambda: counted)
    with serve(make_settings()) as service:
        with opened(service.url) as client:
            client.sendall(head("/embed", length=2**20) + PART + bytes(100_000))
            until(lambda: counted.held > 100_000)
            refused = service.client.post("/embed", files=uploads(crop(1)))
            expect(refused, "uploads-full")
            assert refused.headers["Retry-After"] == "1"
            assert service.client.get("/livez").status_code == 200
        until(lambda: counted.held == 0)
        assert service.client.post("/embed", files=uploads(crop(1))).status_code == 200
        assert counted.held == 0


def test_an_archive_counts_as_what_is_kept_of_it(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Uploads(limit=TAR_BYTES + REQUEST_BYTES)
    monkeypatch.setattr("service.app.Uploads", lambda: counted)
    content = archive({"a.png": crop(1)})
    with serve(make_settings()) as service:
        connection = http.client.HTTPConnection(service.url.removeprefix("http://"), timeout=30)
        connection.putrequest("POST", "/gallery")
        for name, value in {"Content-Type": TAR, "Content-Length": "1000000"}.items():
            connection.putheader(name, value)
        connection.endheaders()
        connection.send(content[:1024])
        until(lambda: counted.held == 1_000_000 + REQUEST_BYTES)
        lines, end = send(service.client, content)  # its length is declared
        assert (len(lines), end["done"]) == (1, True)
        refused = service.client.post("/gallery", content=in_pieces(content, 1024), headers={"Content-Type": TAR})
        expect(refused, "uploads-full")
        connection.close()
        until(lambda: counted.held == 0)
        assert send(service.client, in_pieces(content, 1024))[1]["done"]
        until(lambda: counted.held == 0)


def test_a_body_is_given_back_whatever_becomes_of_it(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Uploads()
    monkeypatch.setattr("service.app.Uploads", lambda: counted)
    with serve(make_settings()) as service:
        assert service.client.post("/gallery", files=uploads(crop(1), b"no picture")).status_code == 422
        assert service.client.post("/query", content=b"{", headers={"Content-Type": "application/json"}).is_error
        assert service.client.post("/nowhere", content=bytes(2**20)).status_code == 404
        assert service.client.post("/gallery", files=uploads(crop(1))).status_code == 201
        assert counted.held == 0


@pytest.mark.parametrize("exact", [False, True])
def test_queries_without_pictures_are_bounded_too(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch, exact: bool
) -> None:
    monkeypatch.setattr(searching, "LEAST_WAITING", 2)
    monkeypatch.setattr(searching, "QUEUE_SECONDS", 1e-6)
    with serve(make_settings()) as service, ThreadPoolExecutor() as pool:
        (enrolled,) = service.client.post("/gallery", files=uploads(crop(1))).json()["results"]
        body = {"crop_ids": [enrolled["crop_id"]], "exact": exact}
        gate, searched = threading.Event(), service.gallery.query_all

        def query_all(probes: Any) -> Any:
            assert gate.wait(30)
            return searched(probes)

        monkeypatch.setattr(service.gallery, "query_all", query_all)
        waiting = [pool.submit(httpx.post, f"{service.url}/query", json=body, timeout=30) for _ in range(2)]
        lane = service.runtime.searches._lane(exact)
        until(lambda: lane._unanswered == 2)
        refused = service.client.post("/query", json=body)
        expect(refused, "queue-full")
        assert int(refused.headers["Retry-After"]) >= 1
        expect(service.client.post("/query", files=uploads(crop(1)), data={"exact": str(exact)}), "queue-full")
        gate.set()
        assert [one.result().status_code for one in waiting] == [200, 200]
        assert service.client.post("/query", json=body).status_code == 200


def test_queries_that_wait_for_too_long_are_answered(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "DEADLINE_SECONDS", 0.1)
    with serve(make_settings()) as service:
        (enrolled,) = service.client.post("/gallery", files=uploads(crop(1))).json()["results"]
        gate, searched = threading.Event(), service.gallery.query_all

        def query_all(probes: Any) -> Any:
            assert gate.wait(30)
            return searched(probes)

        monkeypatch.setattr(service.gallery, "query_all", query_all)
        answer = service.client.post("/query", json={"crop_ids": [enrolled["crop_id"]]})
        gate.set()
        expect(answer, "queue-timeout")
        assert int(answer.headers["Retry-After"]) >= 1
