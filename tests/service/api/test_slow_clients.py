"""Clients that are slow, dead or hostile at the socket: each is ended in its time, and nobody else notices."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import pytest

from tests.drawn_crops import crop, uploads
from tests.eventually import until
from tests.raw_http import PART, answer_of, ended, head, opened, send_for_ever
from tests.serving import Served


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service's limits in time, all so short that a test can wait for them."""
    monkeypatch.setattr("service.api.limits.PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr("service.connections.HEAD_SECONDS", 0.2)
    monkeypatch.setattr("service.connections.STALL_SECONDS", 0.2)


@pytest.mark.usefixtures("impatient")
def test_a_body_that_stops_is_told_so(service: Served) -> None:
    with opened(service.url) as client:
        client.sendall(head("/embed", length=100_000) + PART)
        status, headers, problem = answer_of(client)
        assert (status, problem["type"], headers["connection"]) == (408, "/problems/body-too-slow", "close")
        assert ended(client)


@pytest.mark.usefixtures("impatient")
def test_a_body_that_trickles_is_told_so(service: Served) -> None:
    with opened(service.url) as client:
        client.settimeout(0.02)
        client.sendall(head("/embed", length=100_000) + PART)
        status = b""
        for _ in range(500):  # each piece comes in time; all of them would take an hour
            client.sendall(b"x")
            try:
                status = client.recv(12)
            except TimeoutError:
                continue
            break
    assert status == b"HTTP/1.1 408"


def test_a_body_of_many_pieces_is_fine(service: Served) -> None:
    body = PART + crop(1) + b"\r\n--b--\r\n"
    with opened(service.url) as client:
        client.sendall(head("/embed", length=len(body)))
        for start in range(0, len(body), 100):
            client.sendall(body[start : start + 100])
        assert answer_of(client)[0] == 200


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("beginning", [b"", b"POST /embed HTTP/1.1\r\nHost: loc"])
def test_a_client_that_does_not_ask_is_let_go(service: Served, beginning: bytes) -> None:
    with opened(service.url) as client:
        client.sendall(beginning)
        assert ended(client)


@pytest.mark.usefixtures("impatient")
def test_a_client_that_does_not_stop_after_its_refusal_is_let_go(service: Served) -> None:
    with opened(service.url) as client:
        client.sendall(head("/embed", length=2**30) + PART)
        assert answer_of(client)[0] == 413
        client.settimeout(30)
        with pytest.raises(ConnectionError):
            send_for_ever(client, bytes(4096))


@pytest.mark.usefixtures("impatient")
def test_requests_may_follow_one_another_at_once(service: Served) -> None:
    ask = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with opened(service.url) as client:
        client.sendall(ask * 3)
        assert [answer_of_next(client) for _ in range(3)] == [200, 200, 200]
        assert ended(client)


def answer_of_next(client: socket.socket) -> int:
    """The status of an answer whose body is that of /livez; leaves what follows unread."""
    received = b""
    while not received.endswith(b'{"status":"alive"}'):
        received += client.recv(1)
    return int(received.split()[1])


@pytest.mark.usefixtures("impatient")
def test_an_answer_that_nobody_takes_is_thrown_away(
    service: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(
        service.runtime.gallery, "image", lambda _, **__: bytes(64 * 2**20)
    )  # more than the kernel takes
    with opened(service.url) as client, caplog.at_level("INFO", "service.connections"):
        client.sendall(b"GET /gallery/00000000-0000-0000-0000-000000000000/image HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until(lambda: "did not take its answer" in caplog.text)
        taken = sum(map(len, iter(partial(client.recv, 65536), b"")))
    assert taken < 64 * 2**20
    assert service.client.get("/livez").status_code == 200


def test_an_answer_that_is_taken_slowly_arrives(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.connections.STALL_SECONDS", 2)
    size, taken = 64 * 2**20, 0
    monkeypatch.setattr(service.runtime.gallery, "image", lambda _, **__: bytes(size))
    with opened(service.url) as client:
        client.sendall(b"GET /gallery/00000000-0000-0000-0000-000000000000/image HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while taken < size:
            time.sleep(0.1)  # altogether longer than a client may take nothing
            part = client.recv(2**21, socket.MSG_WAITALL if size - taken > 2**21 else 0)
            assert part
            taken += len(part)


@pytest.mark.parametrize("flood", [b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n", b"X-More: " + b"x" * 100])
def test_a_client_that_asks_without_end_is_ended(service: Served, flood: bytes) -> None:
    with opened(service.url) as client:
        client.sendall(flood if flood.startswith(b"GET") else b"GET /livez HTTP/1.1\r\n")
        with pytest.raises(ConnectionError):
            send_for_ever(client, flood * 1000)
    assert service.client.get("/livez").status_code == 200


@pytest.fixture
def thirty(service: Served) -> Iterator[list[socket.socket]]:
    """Clients that have connected, sent half a head, or half a body, and then nothing more."""
    beginnings = [b"", b"POST /embed HTTP/1.1\r\nHost: loc", head("/embed", length=50_000) + PART]
    with ExitStack() as stack:
        clients = [stack.enter_context(opened(service.url)) for _ in range(30)]
        for number, client in enumerate(clients):
            client.sendall(beginnings[number % 3])
        yield clients


def test_slow_clients_take_nobody_s_place(service: Served, thirty: list[socket.socket]) -> None:
    enrolled = service.client.post("/gallery", files=uploads(*map(crop, range(64))))
    assert enrolled.status_code == 201
    for number in range(20):
        assert service.client.post("/query", files=uploads(crop(number))).status_code == 200
    assert service.runtime.worker.admitted == 0
    assert len(thirty) == 30
