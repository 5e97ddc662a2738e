"""Requests that the end of the service cuts off: a problem that says so, and no traceback."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from service.api.barrier import ProblemBarrier
from service.settings import Settings
from tests.drawn_crops import crop, uploads
from tests.engine_doubles import FaultyEngine
from tests.service.api.canonical_error import expect
from tests.serving import serve


def test_a_request_that_the_end_cuts_off_is_told_to_come_again(
    make_settings: Callable[..., Settings], caplog: pytest.LogCaptureFixture
) -> None:
    with ThreadPoolExecutor() as pool:
        with serve(make_settings(), patience=1) as service:
            engine = FaultyEngine(service.runtime.info)
            engine.gate.clear()
            service.runtime.worker.engine = engine
            waiting = pool.submit(httpx.post, f"{service.url}/embed", files=uploads(crop(1)), timeout=30)
            waiting.add_done_callback(lambda _: engine.gate.set())
            assert engine.entered.wait(10)
        answer = waiting.result()
    expect(answer, "not-ready")
    assert "send it again" in answer.json()["detail"]
    assert int(answer.headers["Retry-After"]) >= 1
    assert not [record for record in caplog.records if record.exc_info]
    (line,) = [record for record in caplog.records if getattr(record, "route", None) == "/embed"]
    assert (line.levelno, vars(line)["status"], vars(line)["problem"]) == (logging.ERROR, 503, "not-ready")


async def cancelled(begin: Callable[[Receive, Send], Awaitable[object]], sent: list[Message]) -> None:
    """Has a request do `begin`, then wait for ever, and cancels it; raises what comes out of the barrier."""
    begun = asyncio.Event()

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        await begin(receive, send)
        begun.set()
        await asyncio.Event().wait()

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    async def request() -> None:
        await ProblemBarrier(app)({"type": "http"}, receive, send)

    task = asyncio.create_task(request())
    await begun.wait()
    task.cancel()
    await task


def test_an_answer_that_has_begun_gets_no_second_one() -> None:
    start: Message = {"type": "http.response.start", "status": 200, "headers": []}
    sent: list[Message] = []
    asyncio.run(cancelled(lambda _, send: send(start), sent))
    assert sent == [start]


def test_a_client_that_is_gone_gets_no_answer() -> None:
    sent: list[Message] = []
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancelled(lambda receive, _: receive(), sent))
    assert sent == []


def test_what_is_cancelled_inside_is_no_end_of_the_service() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise asyncio.CancelledError

    async def unheard() -> Message:
        raise AssertionError

    async def unsaid(_: Message) -> None:
        raise AssertionError

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(ProblemBarrier(app)({"type": "http"}, unheard, unsaid))
