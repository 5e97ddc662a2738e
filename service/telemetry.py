"""What the service says about itself: JSON lines on stderr, request ids and timing headers."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import uuid
from contextvars import ContextVar
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


class RequestLog:
    """Gives every request an id, answers with it and with its timings, and logs it in one line.

    A client's own `X-Request-Id` is kept when it is 1-128 characters of `[A-Za-z0-9._:-]`. Routes put
    milliseconds by stage into `request.state.timings`; they are sent as `Server-Timing`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        given = Headers(scope=scope).get("x-request-id", "")
        identifier = given if _ACCEPTABLE_ID.fullmatch(given) else uuid.uuid4().hex
        token = _current.set(identifier)
        timings: dict[str, float] = {}
        scope.setdefault("state", {})["timings"] = timings
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
            facts = {"method": scope["method"], "path": scope["path"], "status": status}
            facts["ms"] = round(_milliseconds_since(started), 1)
            logger.log(_level_of(status, scope["path"]), "request", extra=facts)
            _current.reset(token)


def _milliseconds_since(started: float) -> float:
    return (time.perf_counter() - started) * 1e3


def _level_of(status: int, path: str) -> int:
    """Probes come every few seconds and are worth a line only when they fail."""
    if status >= 500:
        return logging.ERROR
    return logging.DEBUG if path in ("/livez", "/readyz") else logging.INFO
