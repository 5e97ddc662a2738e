"""Queries that wait together are searched together, in threads of their own."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import faiss

from service.gallery.contract import AnyGallery
from service.gallery.records import Answer, Probe

logger = logging.getLogger(__name__)

MOST_TOGETHER = 32  # queries in one search


@dataclass(frozen=True, eq=False)
class _Waiting:
    probe: Probe
    answer: asyncio.Future[Answer]

    def settle(self, found: Answer | BaseException) -> None:
        if self.answer.done():
            return
        if isinstance(found, BaseException):
            self.answer.set_exception(found)
        else:
            self.answer.set_result(found)


class _Lane:
    """One search at a time; what comes meanwhile is the next.

    Like the engine's queue it has no timer: a lone query waits for nothing, a crowd is searched at once.
    """

    def __init__(self, gallery: AnyGallery, name: str) -> None:
        self._gallery = gallery
        self._waiting: deque[_Waiting] = deque()
        self._serving: asyncio.Task[None] | None = None
        # FAISS starts a team of threads for every call, which for one query costs twice the time that it saves.
        self._thread = ThreadPoolExecutor(1, name, initializer=faiss.omp_set_num_threads, initargs=(1,))

    def close(self) -> None:
        self._thread.shutdown()

    async def answer(self, probe: Probe) -> Answer:
        loop = asyncio.get_running_loop()
        waiting = _Waiting(probe, loop.create_future())
        self._waiting.append(waiting)
        if self._serving is None or self._serving.done():
            # It begins in the next turn of the loop: then all queries of one batch of embeddings are there.
            self._serving = loop.create_task(self._serve())
        return await waiting.answer

    async def _serve(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_TOGETHER))]
            wanted = [waiting for waiting in batch if not waiting.answer.done()]
            for waiting, found in zip(wanted, await self._search(wanted), strict=True):
                waiting.settle(found)

    async def _search(self, batch: Sequence[_Waiting]) -> Sequence[Answer | BaseException]:
        """An answer or an error for each; what fails together is searched one by one, and fails alone."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._thread, self._gallery.query_all, [one.probe for one in batch])
        except Exception as error:
            if len(batch) <= 1:
                return [error for _ in batch]
            logger.warning("queries failed together; searching one by one", exc_info=error)
            return [found for one in batch for found in await self._search([one])]


class Searches:
    """The queries of a gallery. Only the event loop's thread may use it.

    Those that ask to be compared with every crop are searched apart: at a million crops one takes as long as hundreds
    of the others, which would wait for it.
    """

    def __init__(self, gallery: AnyGallery) -> None:
        self._likely = _Lane(gallery, "resight-search")
        self._exact = _Lane(gallery, "resight-search-exact")

    def close(self) -> None:
        """Ends the threads after the searches under way."""
        self._likely.close()
        self._exact.close()

    async def answer(self, probe: Probe) -> Answer:
        """What `Gallery.query` says; raises what it raises. Cancelled while it waits, it is not searched."""
        return await (self._exact if probe.options.exact else self._likely).answer(probe)
