"""Queries that wait together are searched together, in threads of their own."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter

import faiss

from service.gallery.contract import AnyGallery
from service.gallery.records import Answer, GalleryUnavailable, Probe
from service.inference.feed import DEADLINE_SECONDS
from service.inference.outcomes import QueueFull, TooLate

logger = logging.getLogger(__name__)

MOST_TOGETHER = 32  # queries in one search
QUEUE_SECONDS = 4  # of work at the measured rate may wait, as for the model
LEAST_WAITING = 4 * MOST_TOGETHER  # queries may wait at any rate
LEAST_SECONDS = 1e-4  # of one query, so that quick ones do not open the queue to any number
RATE_SMOOTHING = 0.2


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

    Like the engine's queue it has no timer: a lone query waits for nothing, a crowd is searched at once. And like
    that it is bounded by its measured rate: who would wait for long is refused, who has waited for too long dropped.
    """

    def __init__(self, gallery: AnyGallery, name: str) -> None:
        self._gallery = gallery
        self._waiting: deque[_Waiting] = deque()
        self._serving: asyncio.Task[None] | None = None
        self._unanswered = 0
        self._seconds = QUEUE_SECONDS / LEAST_WAITING  # that one query takes, smoothed; supposed until it is measured
        self._weight = 1.0  # of the next measurement: the first says more than what was supposed
        # FAISS starts a team of threads for every call, which for one query costs twice the time that it saves.
        self._thread = ThreadPoolExecutor(1, name, initializer=faiss.omp_set_num_threads, initargs=(1,))

    def close(self) -> None:
        self._thread.shutdown()

    def require_room(self) -> None:
        if self._unanswered >= max(LEAST_WAITING, QUEUE_SECONDS / self._seconds):
            wait = max(1, math.ceil(self._unanswered * self._seconds))
            raise QueueFull(wait, "queries are waiting for the gallery")

    async def answer(self, probe: Probe) -> Answer:
        self.require_room()
        self._unanswered += 1
        limit = asyncio.timeout(DEADLINE_SECONDS)
        try:
            async with limit:
                return await self._answer(probe)
        except TimeoutError as error:
            if not limit.expired():  # the gallery's own
                raise
            raise TooLate("The query waited too long for the gallery and was dropped; send it again.") from error
        finally:
            self._unanswered -= 1

    async def _answer(self, probe: Probe) -> Answer:
        loop = asyncio.get_running_loop()
        waiting = _Waiting(probe, loop.create_future())
        self._waiting.append(waiting)
        if self._serving is None or self._serving.done():
            # It begins in the next turn of the loop: then all queries of one batch of embeddings are there.
            self._serving = loop.create_task(self._serve())
        try:
            return await waiting.answer
        except asyncio.CancelledError:
            with suppress(ValueError):  # where it is in the search under way
                self._waiting.remove(waiting)
            raise

    async def _serve(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_TOGETHER))]
            wanted = [waiting for waiting in batch if not waiting.answer.done()]
            if not wanted:
                continue
            started = perf_counter()
            answers = await self._search(wanted)
            for waiting, found in zip(wanted, answers, strict=True):
                waiting.settle(found)
            if len(wanted) > 1 and all(isinstance(found, GalleryUnavailable) for found in answers):
                self._refuse_waiting(answers[0])
            seconds = max((perf_counter() - started) / len(wanted), LEAST_SECONDS)
            self._seconds += self._weight * (seconds - self._seconds)
            self._weight = RATE_SMOOTHING

    def _refuse_waiting(self, reason: Answer | BaseException) -> None:
        """Answers those that wait as the many before them: a gallery that is away would keep them as long again."""
        while self._waiting:
            self._waiting.popleft().settle(reason)

    async def _search(self, batch: Sequence[_Waiting]) -> Sequence[Answer | BaseException]:
        """An answer or an error for each; what fails together is searched one by one, and fails alone.

        A gallery that is away is not asked again for each, nor is any asked for those whose client has gone.
        """
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._thread, self._gallery.query_all, [one.probe for one in batch])
        except Exception as error:
            if len(batch) <= 1 or isinstance(error, GalleryUnavailable):
                return [error for _ in batch]
            logger.warning("queries failed together; searching one by one", exc_info=error)
            return [error if one.answer.done() else (await self._search([one]))[0] for one in batch]


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

    def require_room(self, exact: bool) -> None:
        """Raises QueueFull when `answer` would: good for refusing before pictures are embedded for it."""
        self._lane(exact).require_room()

    async def answer(self, probe: Probe) -> Answer:
        """What `Gallery.query` says; raises what it raises. Cancelled while it waits, it is not searched.

        Raises QueueFull at once when too many wait already, and TooLate after `DEADLINE_SECONDS`.
        """
        return await self._lane(probe.options.exact).answer(probe)

    def _lane(self, exact: bool) -> _Lane:
        return self._exact if exact else self._likely
