"""What one request may bring, and the middleware that hold it to that before its body arrives and while it does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import Kind, Problem, problem_of, problem_response
from service.inference.outcomes import QueueFull, WorkerStopped

MAX_IMAGES = 64
MAX_QUERY_IMAGES = 16
MAX_FILE_BYTES = 8 * 2**20
MAX_BODY_BYTES = 64 * 2**20
MAX_UPLOAD_BYTES = 4 * MAX_BODY_BYTES
REQUEST_BYTES = 64 * 2**10  # of buffers, which a body takes from its first byte on
PATIENCE_SECONDS = 20.0
LEAST_BYTES_PER_SECOND = 8 * 2**10
MAX_JSON_BYTES = 2**20
MAX_TAR_BYTES = 4 * 2**30
MAX_TAR_MEMBERS = 100_000
MAX_TAR_HEADERS = 4 * MAX_TAR_MEMBERS  # a member may take several
MAX_MANIFEST_BYTES = 16 * 2**20
MAX_GROUP_BYTES = 16 * 2**20  # of a tar's pictures that wait to be enrolled together
TAR_BYTES = MAX_MANIFEST_BYTES + MAX_GROUP_BYTES + MAX_FILE_BYTES  # all that is kept of a tar at a time
TAR = "application/x-tar"
FORM = "multipart/form-data"
MAX_FIELDS = 256
MAX_FIELD_BYTES = 2**20
MAX_META_BYTES = 4 * 2**10
MAX_META_DEPTH = 32
MAX_TOP_K = 1000
MAX_CROPS_PER_IDENTITY = 100
MAX_PAGE = 1000


class Uploads:
    """The memory that request bodies may take together, in bytes: from their arrival until they are answered.

    Only the event loop's thread may use it.
    """

    def __init__(self, limit: int = MAX_UPLOAD_BYTES) -> None:
        self.limit = limit
        self.held = 0

    def take(self, size: int) -> None:
        """Raises Problem when that would be too much."""
        if self.held + size > self.limit:
            detail = "Too many pictures are on their way to the service; send these again in a second."
            raise Problem(Kind.UPLOADS_FULL, detail, headers={"Retry-After": "1"})
        self.held += size

    def give_back(self, size: int) -> None:
        """What `take` took."""
        self.held -= size


class QueueGuard:
    """Refuses pictures by the head of their request, 429 or 503, while the queue has no place for a single one.

    Under overload most requests are refused; here that costs a fraction of what a route would. It heeds those of
    `routes` that declare a form in their OpenAPI, and needs `route` on `request.state`.
    """

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute]) -> None:
        self.app = app
        self._taking_pictures = {route.path for route in routes if isinstance(route, APIRoute) and _takes_form(route)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] == "http"
            and scope["method"] == "POST"
            and scope["state"].get("route") in self._taking_pictures
            and media_type(Headers(scope=scope)) in (FORM, TAR)
        ):
            try:
                scope["app"].state.runtime.worker.require_room()
            except (QueueFull, WorkerStopped) as error:
                await problem_response(problem_of(error))(scope, receive, send)
                return
        await self.app(scope, receive, send)


def _takes_form(route: APIRoute) -> bool:
    body = (route.openapi_extra or {}).get("requestBody", {})
    return FORM in body.get("content", {})


def media_type(headers: Headers) -> str:
    """The type of the body, without parameters and in lower case."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


class BodyLimit:
    """Holds bodies to what they may take of memory and time, while they arrive.

    413 for one over `max_bytes`, or for a tar, which is worked off as it arrives, `MAX_TAR_BYTES`; at once when the
    length is declared. 429 when all bodies together exceed `uploads`, where a tar counts as what is kept of it.
    408 for one that pauses for `PATIENCE_SECONDS`, or that takes so much longer than it would at the least rate;
    time counts only while the service waits for it.
    Starlette's own middleware answers text/plain and overwrites a handler's problem; this one does not.
    """

    def __init__(self, app: ASGIApp, uploads: Uploads, max_bytes: int = MAX_BODY_BYTES) -> None:
        self.app = app
        self.uploads = uploads
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        streamed = media_type(headers) == TAR
        most = MAX_TAR_BYTES if streamed else self.max_bytes
        declared = _declared(headers)
        if declared is not None and declared > most:
            await problem_response(_too_large(most))(scope, receive, send)
            return
        kept = TAR_BYTES if declared is None else min(TAR_BYTES, declared + REQUEST_BYTES)
        body = _Body(receive, self.uploads, most, kept if streamed else None)

        async def freeing(message: Message) -> None:
            if not streamed:
                body.free()  # whoever answers has let go of the body
            await send(message)

        try:
            await self.app(scope, body.receive, freeing)
        finally:
            body.free()


class _Body:
    """One request's body on its way in; of one that is worked off as it arrives, no more than `kept` bytes are kept."""

    def __init__(self, receive: Receive, uploads: Uploads, max_bytes: int, kept: int | None) -> None:
        self._receive = receive
        self._kept = kept
        self._uploads = uploads
        self._max_bytes = max_bytes
        self._received = 0
        self._held = 0
        self._waited = 0.0
        self._arriving = True

    async def receive(self) -> Message:
        """The next message; raises Problem. After the body there is but the end of the connection to wait for."""
        if not self._arriving:
            return await self._receive()
        message = await self._in_time()
        self._arriving = message.get("more_body", False)
        size = len(message.get("body", b""))
        self._received += size
        if self._received > self._max_bytes:
            raise _too_large(self._max_bytes)
        if self._kept is not None:
            self._hold(0 if self._held else self._kept)
        elif size or self._arriving:
            self._hold(size if self._held else size + REQUEST_BYTES)
        return message

    def free(self) -> None:
        """Gives back the memory. Idempotent."""
        self._uploads.give_back(self._held)
        self._held = 0

    def _hold(self, size: int) -> None:
        self._uploads.take(size)
        self._held += size

    async def _in_time(self) -> Message:
        behind = self._waited - self._received / LEAST_BYTES_PER_SECOND
        started = time.perf_counter()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS - max(behind, 0)):
                return await self._receive()
        except TimeoutError as error:
            detail = "The body arrives too slowly; send it again over a better connection, or less at a time."
            raise Problem(Kind.BODY_TOO_SLOW, detail, headers={"Connection": "close"}) from error
        finally:
            self._waited += time.perf_counter() - started


def _declared(headers: Headers) -> int | None:
    """The length of the body in bytes; None where its end is not known before it comes."""
    length = headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() and "transfer-encoding" not in headers else None


def _too_large(max_bytes: int) -> Problem:
    detail = f"A request may have {max_bytes // 2**20} MiB; send fewer images at a time."
    return Problem(Kind.BODY_TOO_LARGE, detail)
