"""The load benchmarks run, count what they say, and notice a service that does not hold."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import overload, slow_clients, soak
from benchmarks.load import LoadError, Reply, at_rate, pictures, process_of, request_of
from benchmarks.overload import Overload
from benchmarks.soak import Soak
from tests.drawn_crops import crop, uploads
from tests.serving import Served

GOOD = Overload(100.0, 1000.0, [Reply(0, 200, 1.0), Reply(0, 429, 0.01)], [100.0] * 8, 100.0)
STEADY = Soak(70.0, [Reply(0, 200, 0.1)], list(range(20)), [100.0] * 20, 9, 9)


def test_every_request_is_sent_and_answered(service: Served) -> None:
    service.client.post("/gallery", files=uploads(crop(1)))
    requests = [request_of("/query", picture) for picture in pictures(4)] + [request_of("/query", b"none")]
    replies = asyncio.run(at_rate(service.url, requests, 50, 1))
    assert sorted(reply.status for reply in replies) == [200] * 40 + [422] * 10
    assert all(reply.seconds > 0 for reply in replies)
    assert process_of(service.url).memory > 2**20


@pytest.mark.usefixtures("service")
def test_the_commands_run(service: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for module in (overload, soak):
        monkeypatch.setattr(module, "SAMPLES", 8)
        monkeypatch.setattr(module, "CLIENTS", 2)
    at = ["--url", service.url, "--seconds", "0.3"]
    seen = asyncio.run(overload.measure(service.url, 1.5, 0.3, measured=0.2))
    assert {reply.status for reply in seen.replies} == {200}
    soaked = asyncio.run(soak.measure(service.url, 0.2, 0.3, measured=0.2))
    assert len(soaked.memory) == 8
    assert soaked.files_after > 0
    assert slow_clients.main([*at, "--sockets", "6", "--rounds", "1"]) in (0, 1)
    assert "6 slow clients" in capsys.readouterr().out
    for module in (overload, soak, slow_clients):
        assert module.main(["--url", "http://127.0.0.1:9"]) == 2
        assert "does not answer" in capsys.readouterr().err


def test_nobody_there_is_one_sentence() -> None:
    with pytest.raises(LoadError, match="start the service"):
        process_of("http://127.0.0.1:9")


def test_an_overload_that_is_not_held_is_said() -> None:
    assert GOOD.broken() == []
    slow = [Reply(0, 429, 0.2)]
    for bad in (
        replace(GOOD, replies=[*GOOD.replies, Reply(0, 503, 0.1)]),
        replace(GOOD, replies=[*GOOD.replies, Reply(0, 0, 0.1)]),
        replace(GOOD, replies=slow),
        replace(GOOD, memory=[100.0] * 7 + [106.0]),
        replace(GOOD, after=80.0),
    ):
        assert len(bad.broken()) == 1
    assert replace(GOOD, memory=[50.0] * 2 + [100.0] * 6).broken() == []  # it may grow while it warms


def test_a_soak_that_is_not_held_is_said() -> None:
    assert STEADY.broken() == []
    noise = np.random.default_rng(0).normal(0, 2**20, 20)
    assert replace(STEADY, memory=(2**30 + noise).tolist()).broken() == []
    for bad in (
        replace(STEADY, memory=[2.0**30 + 2**16 * second for second in range(20)]),
        replace(STEADY, files_after=10),
        replace(STEADY, replies=[Reply(0, 429, 0.1)]),
    ):
        assert len(bad.broken()) == 1


def test_the_trend_is_that_of_the_line_with_its_error() -> None:
    times = np.arange(200.0)
    slope, error = soak.trend(times.tolist(), (5 + 3 * times).tolist())
    assert slope == pytest.approx(3)
    assert error == pytest.approx(0, abs=1e-9)
    noise = np.random.default_rng(1).normal(0, 10, 200)
    slope, error = soak.trend(times.tolist(), (3 * times + noise).tolist())
    assert abs(slope - 3) < 3 * error
    assert error == pytest.approx(10 / np.sqrt(((times - times.mean()) ** 2).sum()), rel=0.2)
