"""One client's connection: uvicorn's own, which gives up on those that neither ask nor listen.

uvicorn lets a client take for ever over the head of its request, over a body that was answered already, and over
reading its answer; and it keeps heads of any length and pipelined requests in any number. Bodies on their way to
the application have their limits in `service.api.limits`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

logger = logging.getLogger(__name__)

HEAD_SECONDS = 20.0  # from the connection or the last answer to the end of the next request's head
STALL_SECONDS = 20.0  # in which a client takes nothing of an answer that waits for it

MAX_HEAD_BYTES = 64 * 2**10
MAX_PIPELINED = 16


class Connection(HttpToolsProtocol):
    """An HTTP/1.1 connection with limits in time and size; for `uvicorn.Config(http=Connection)`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._asking = _Timer(self.loop, self._silent)
        self._listening = _Timer(self.loop, self._not_taken)
        self._waiting_bytes = 0
        self._head_bytes: int | None = None  # of a head that has begun and not ended
        self._answering: RequestResponseCycle | None = None  # the oldest of the pipelined requests

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._asking.start(HEAD_SECONDS)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head_bytes is not None:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.send_400_response("The head of the request is too long.")

    def on_message_begin(self) -> None:
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._asking.stop()
        self._head_bytes = None
        super().on_headers_complete()
        if not self.pipeline:
            self._answering = self.cycle
        elif len(self.pipeline) > MAX_PIPELINED:
            self._abort()
            raise ConnectionAbortedError("too many requests at once")  # the parser reads no further

    def on_response_complete(self) -> None:
        if self.pipeline:
            self._answering, _ = self.pipeline[-1]
        super().on_response_complete()
        if self.cycle.response_complete:  # else a pipelined request runs
            self._asking.start(HEAD_SECONDS)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._listen()

    def resume_writing(self) -> None:
        self._listening.stop()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._asking.stop()
        self._listening.stop()
        super().connection_lost(exc)

    def _silent(self) -> None:
        logger.debug("a client did not ask in time")
        self.transport.close()

    def _listen(self) -> None:
        self._waiting_bytes = self.transport.get_write_buffer_size()
        self._listening.start(STALL_SECONDS)

    def _not_taken(self) -> None:
        if self.transport.get_write_buffer_size() < self._waiting_bytes:
            self._listen()
            return
        logger.info("a client did not take its answer in time")
        self._abort()

    def _abort(self) -> None:
        """Ends the connection at once; who still answers need not fail at it."""
        if self._answering is not None:
            self._answering.disconnected = True
        self.transport.abort()


class _Timer:
    """Calls back once, unless it is stopped or started again before."""

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        self._handle: asyncio.TimerHandle | None = None

    def start(self, seconds: float) -> None:
        self.stop()
        self._handle = self._loop.call_later(seconds, self._callback)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
