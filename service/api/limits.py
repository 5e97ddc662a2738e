"""What one request may bring, and the middleware that holds the body to it while it arrives."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import Kind, Problem, problem_response

MAX_IMAGES = 64
MAX_QUERY_IMAGES = 16
MAX_FILE_BYTES = 8 * 2**20
MAX_BODY_BYTES = 64 * 2**20
MAX_JSON_BYTES = 2**20
MAX_FIELDS = 256
MAX_FIELD_BYTES = 2**20
MAX_META_BYTES = 4 * 2**10
MAX_META_DEPTH = 32
MAX_TOP_K = 1000
MAX_CROPS_PER_IDENTITY = 100
MAX_PAGE = 1000


class BodyLimit:
    """Refuses bodies over `max_bytes` with 413: at once when the length is declared, else while counting.

    Starlette's own middleware answers text/plain and overwrites a handler's problem; this one does not.
    """

    def __init__(self, app: ASGIApp, max_bytes: int = MAX_BODY_BYTES) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "0")
        if declared.isascii() and declared.isdigit() and int(declared) > self.max_bytes:
            await problem_response(self._too_large())(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_bytes:
                raise self._too_large()
            return message

        await self.app(scope, counted, send)

    def _too_large(self) -> Problem:
        return Problem(
            Kind.BODY_TOO_LARGE,
            f"A request may have {self.max_bytes // 2**20} MiB; send fewer images at a time.",
        )
