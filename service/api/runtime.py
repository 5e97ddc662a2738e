"""What the routes share while the service runs, and how they ask for it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, TypeVar, TypeVarTuple

from fastapi import Depends, Request
from starlette.requests import ClientDisconnect

from service.api.auth import Door
from service.api.problems import Kind, Problem, shown
from service.api.schemas import REPEATABLE
from service.api.searching import Searches
from service.gallery.audit import Act
from service.gallery.contract import AnyAudit, AnyGallery
from service.gallery.records import GalleryFull
from service.gallery.retention import Retention
from service.inference.batching import BatchWorker
from service.inference.engine import Engine
from service.inference.model import ModelInfo, file_stamp
from service.settings import Settings

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Pool:
    """Up to `size` threads for one kind of work that would block the event loop."""

    def __init__(self, size: int, name: str) -> None:
        self._threads = ThreadPoolExecutor(size, f"resight-{name}")

    async def run(self, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Calls `function` in one of the threads; waits for one to be free.

        Cancelled while it waits, it never calls; later, the thread goes on and keeps its place until it ends.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    def close(self) -> None:
        """Ends the threads after the work under way."""
        self._threads.shutdown()


@dataclass(frozen=True)
class Runtime:
    """The parts of a running service, built once by `create_app`.

    Each kind of work has threads of its own, so that a long search holds up neither decoding nor a write: `searches`
    answers queries, `decoding` and `computing` (lists, long answers) compute, `storing` is for writes and point
    reads, which mostly wait for the disk.
    """

    settings: Settings
    info: ModelInfo
    worker: BatchWorker
    searches: Searches
    gallery: AnyGallery
    audit: AnyAudit
    retention: Retention | None
    decoding: Pool
    computing: Pool
    storing: Pool
    door: Door
    model_stamp: tuple[int, int, int] | None  # of the model file when it was loaded

    async def shortage(self) -> str | None:
        """Why nothing more should be enrolled, None while there is room on the disk."""
        return await self.storing.run(lambda: self.gallery.shortage)

    async def require_space(self) -> None:
        """Raises GalleryFull before more pictures are read than the disk should take."""
        reason = await self.shortage()
        if reason is not None:
            raise GalleryFull(f"Nothing can be enrolled, {reason}; free space, then send it again. Queries go on.")

    @property
    def model_file(self) -> Literal["loaded", "replaced", "missing"]:
        """What has become of the model's file since it was loaded. Asks the file system."""
        now = file_stamp(self.info.path)
        if now is None:
            return "missing"
        return "loaded" if now == self.model_stamp else "replaced"

    @property
    def troubles(self) -> dict[str, str | None]:
        """Why each part cannot do its work, and with it the service; None while it can. Never blocks."""
        return {"engine": self.worker.trouble, "gallery": self.gallery.trouble}

    def warnings(self) -> dict[str, str | None]:
        """What somebody should look after though the service goes on, by what it is about. Asks the file system."""
        of_model = None
        if (state := self.model_file) != "loaded":
            of_model = f"the model file {self.info.path} is {state}; a restart would not take the model that runs now"
        return {
            "keys": self.door.trouble,
            "retention": None if self.retention is None else self.retention.warning,
            "upkeep": self.settings.upkeep_warning,
            "disk": self.gallery.shortage,
            "model": of_model,
        }

    @property
    def engine(self) -> Engine:
        """What runs the model now; another one after it broke and was loaded again."""
        return self.worker.engine


def runtime_of(request: Request) -> Runtime:
    """The running service that `request` came to."""
    runtime: Runtime = request.app.state.runtime
    return runtime


async def audited(
    request: Request,
    runtime: Runtime,
    action: str,
    ids: Sequence[str],
    count: int | None,
    work: Callable[[*Ts], T],
    *arguments: *Ts,
) -> T:
    """Runs `work` among the writes, once the audit log has it on disk; raises what both raise."""
    act = Act(action, request.state.actor, ids, count)
    started = time.perf_counter()
    done = await runtime.storing.run(partial(runtime.audit.perform, act, work, *arguments))
    request.state.timings["commit"] = (time.perf_counter() - started) * 1e3
    return done


# Dependencies are coroutines: FastAPI gives every plain function a thread of its own, which costs more than the answer.


async def _runtime(request: Request) -> Runtime:
    return runtime_of(request)


async def _no_parameters(request: Request) -> None:
    for name in request.query_params:
        detail = f"There is no query parameter {shown(name)!r} here; leave it out or send it as a form field."
        raise Problem(Kind.UNKNOWN_FIELD, detail)


async def _parameters_once(request: Request) -> None:
    for name, times in Counter(name for name, _ in request.query_params.multi_items()).items():
        if times > 1 and name not in REPEATABLE:
            raise Problem(Kind.INVALID_FIELD, f"{shown(name)}: given {times} times; give it once.")


RuntimeDep = Annotated[Runtime, Depends(_runtime)]
NoParameters = Depends(_no_parameters)
ParametersOnce = Depends(_parameters_once)


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
