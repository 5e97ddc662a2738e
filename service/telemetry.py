"""What the service says about itself: JSON lines on stderr, request ids and timing headers."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

_current: ContextVar[str] = ContextVar("request_id", default="-")
_ACCEPTABLE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)
_PLAIN_RECORD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


def request_id() -> str:
    """The id of the request that the running task works for; `-` outside of requests."""
    return _current.get()


class JsonLines(logging.Formatter):
    """One JSON object a record: time, level, logger, message, request id, what `extra` added, traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id() != "-":
            line["request_id"] = request_id()
        line |= {name: value for name, value in vars(record).items() if name not in _PLAIN_RECORD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class StandardError(logging.Handler):
    """Writes to whatever `sys.stderr` is at the moment, so that a redirected stderr is honoured."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(self.format(record), file=sys.stderr, flush=True)
        except Exception:
            self.handleError(record)


def configure_logging(level: str) -> None:
    """Sends the records of the service, of uvicorn and of `warnings`, and libraries' warnings, to stderr as JSON lines.

    The root logger is left to whoever embeds the service. uvicorn's access log is silenced, because
    `RequestLog` writes the same with the request's id. Calling it again changes the level only.
    """
    handler = StandardError()
    handler.setFormatter(JsonLines())
    logging.captureWarnings(True)
    for name in ("service", "uvicorn", "py.warnings"):
        target = logging.getLogger(name)
        target.handlers = [handler]
        target.setLevel(level.upper())
    for name in ("python_multipart", "asyncio"):  # without a handler, Python would print their warnings as they are
        target = logging.getLogger(name)
        target.handlers = [handler]
        target.setLevel(max(logging.WARNING, logging.getLogger("service").level))
    access = logging.getLogger("uvicorn.access")
    access.handlers = []
    access.propagate = False


@dataclass(frozen=True)
class Answered:
    """A request that is over: where it went (None: nowhere), how it was answered, and what took how long.

    `status` is 0 when the client was gone before; `problem` is the end of the problem's type.
    """

    method: str
    route: str | None
    status: int
    problem: str | None
    seconds: float
    stages_ms: Mapping[str, float]


class RequestLog:
    """Gives every request an id, answers with it and with its timings, logs it in one line and has it counted.

    A client's own `X-Request-Id` is kept when it is 1-128 characters of `[A-Za-z0-9._:-]`. On `request.state`
    others put milliseconds by stage into `timings`, sent as `Server-Timing`, and say which `route` it takes and
    which `problem` answers it. The line has the route, not the path, in which there may be a name.
    """

    def __init__(self, app: ASGIApp, count: Callable[[Answered], None]) -> None:
        self.app = app
        self.count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        given = Headers(scope=scope).get("x-request-id", "")
        identifier = given if _ACCEPTABLE_ID.fullmatch(given) else uuid.uuid4().hex
        token = _current.set(identifier)
        timings: dict[str, float] = {}
        state: dict[str, Any] = scope.setdefault("state", {})
        state["timings"] = timings
        status = 0

        async def named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                stages = {**timings, "total": _milliseconds_since(started)}
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = identifier
                headers["Server-Timing"] = ", ".join(f"{stage};dur={ms:.1f}" for stage, ms in stages.items())
            await send(message)

        try:
            await self.app(scope, receive, named)
        finally:
            seconds = time.perf_counter() - started
            route, problem = state.get("route"), state.get("problem")
            self.count(Answered(scope["method"], route, status, problem, seconds, timings))
            facts = {"method": scope["method"], "route": route, "status": status, "ms": round(seconds * 1e3, 1)}
            if problem is not None:
                facts["problem"] = problem
            logger.log(_level_of(status, route), "request", extra=facts)
            _current.reset(token)


def _milliseconds_since(started: float) -> float:
    return (time.perf_counter() - started) * 1e3


def _level_of(status: int, route: str | None) -> int:
    """Probes come every few seconds and are worth a line only when they fail."""
    if status >= 500:
        return logging.ERROR
    return logging.DEBUG if route in ("/livez", "/readyz", "/metrics") else logging.INFO
