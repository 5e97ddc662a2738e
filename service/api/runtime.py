"""What the routes share while the service runs, and how they ask for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, TypeVarTuple

import anyio
import anyio.to_thread
from fastapi import Depends, Request
from starlette.requests import ClientDisconnect

from service.api.problems import Kind, Problem
from service.gallery.gallery import Gallery
from service.inference.batching import BatchWorker
from service.inference.engine import Engine
from service.inference.model import ModelInfo
from service.settings import Settings

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@dataclass(frozen=True)
class Runtime:
    """The parts of a running service, built once by `create_app`."""

    settings: Settings
    info: ModelInfo
    engine: Engine
    worker: BatchWorker
    gallery: Gallery
    threads: anyio.CapacityLimiter

    async def in_thread(self, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Runs what would block the event loop (decoding, the gallery) in the small thread pool."""
        return await anyio.to_thread.run_sync(function, *arguments, limiter=self.threads)


def _runtime(request: Request) -> Runtime:
    runtime: Runtime = request.app.state.runtime
    return runtime


def _no_parameters(request: Request) -> None:
    for name in request.query_params:
        detail = f"There is no query parameter {name!r} here; leave it out or send it as a form field."
        raise Problem(Kind.UNKNOWN_FIELD, detail)


RuntimeDep = Annotated[Runtime, Depends(_runtime)]
NoParameters = Depends(_no_parameters)


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Awaits `work`, and cancels it when the client goes away first; the body must have been read.

    Images of a client that gave up are then dropped from the queue instead of being computed.
    """
    task = asyncio.create_task(work)
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
