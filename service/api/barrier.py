"""The last net: what no handler took, and what the end of the service cut off, becomes a problem."""

from __future__ import annotations

import asyncio
import logging

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import RETRY_SECONDS, Kind, Problem, problem_of, problem_response

logger = logging.getLogger(__name__)


class ProblemBarrier:
    """An exception that no handler took becomes a 500 problem, a request cut off at the end of the service a 503.

    Starlette and uvicorn would answer those outside of all middleware, bare and without the request's id.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = gone = False

        async def heard() -> Message:
            nonlocal gone
            message = await receive()
            gone = gone or message["type"] == "http.disconnect"
            return message

        async def noted(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, heard, noted)
        except ClientDisconnect:
            logger.info("the client went away before the answer")
        except asyncio.CancelledError:
            if gone or not _cancelled_from_outside():
                raise
            # Passed on, uvicorn would log its traceback. An answer that has begun ends with its connection.
            if not started:
                detail = "The service is ending and did not finish this request; send it again in some seconds."
                problem = Problem(Kind.NOT_READY, detail, headers={"Retry-After": RETRY_SECONDS})
                await problem_response(problem)(scope, receive, send)
        except Exception as error:
            problem = problem_of(error)
            if not started:
                await problem_response(problem)(scope, receive, send)


def _cancelled_from_outside() -> bool:
    """Whether the task is to end, as uvicorn asks of those that its shutdown has waited for in vain."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
