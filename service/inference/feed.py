"""The crops of requests on their way through the engine, and the word that comes back of each."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from service.inference.outcomes import Embedded, Outcome, Outcomes, TooLate, WorkerStopped

logger = logging.getLogger(__name__)

DEADLINE_SECONDS = 30.0  # longer without a word than clients wait for an answer


@dataclass(frozen=True, eq=False)
class Item:
    """A crop [H, W, 3] that waits for the engine, and who waits for it."""

    crop: NDArray[np.uint8]
    attention: bool
    future: asyncio.Future[Outcome]
    queued: float = field(default_factory=time.perf_counter)

    def settle(self, outcome: Outcome | WorkerStopped) -> None:
        """For the event loop's thread."""
        if self.future.done():
            return
        if isinstance(outcome, WorkerStopped):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


def settle(items: Sequence[Item], outcomes: Sequence[Outcome | WorkerStopped]) -> None:
    """Hands outcomes to the event loop, together: what waits for a batch goes on in the same turn of the loop."""

    def settle_all() -> None:
        for item, outcome in zip(items, outcomes, strict=True):
            item.settle(outcome)

    if not items:
        return
    try:
        items[0].future.get_loop().call_soon_threadsafe(settle_all)
    except RuntimeError:  # the loop may be gone when the process is stopping
        logger.debug("embeddings came after their event loop had closed")


class Feed:
    """The crops of one request; for the event loop's thread.

    They are queued as soon as they fill a batch, so that the first are embedded while others are decoded, and
    otherwise when the last is there: a batch that begins with too few keeps the others waiting.
    """

    def __init__(self, enqueue: Callable[[Sequence[Item]], None], attention: bool, full: int) -> None:
        self._enqueue = enqueue
        self._attention = attention
        self._full = full
        self._items: dict[int, Item] = {}
        self._held: list[Item] = []
        self._dropped = False

    def add(self, place: int, crop: NDArray[np.uint8]) -> None:
        """Takes a crop [H, W, 3]; `place` orders the outcomes. Raises WorkerStopped."""
        if self._dropped:
            return
        item = Item(crop, self._attention, asyncio.get_running_loop().create_future())
        self._items[place] = item
        self._held.append(item)
        if len(self._held) == self._full:
            self._queue_held()

    async def outcomes(self) -> Outcomes:
        """What became of the crops that were added, at least one, by place. Raises what `BatchWorker.embed` does."""
        self._queue_held()
        items = [self._items[place] for place in sorted(self._items)]
        outcomes = await _all_in_time([item.future for item in items])
        return _timed(min(item.queued for item in items), outcomes)

    def drop(self) -> None:
        """Nobody waits for them any more, nor for those that are still added."""
        self._dropped = True
        for item in self._items.values():
            item.future.cancel()

    def _queue_held(self) -> None:
        held, self._held = self._held, []
        if held:
            self._enqueue(held)


async def _all_in_time(futures: Sequence[asyncio.Future[Outcome]]) -> list[Outcome]:
    """Waits for all, as long as some come out within every `DEADLINE_SECONDS`; raises TooLate."""
    pending = set(futures)
    while pending:
        done, pending = await asyncio.wait(pending, timeout=DEADLINE_SECONDS)
        if not done:
            raise TooLate
    errors = [error for error in [future.exception() for future in futures] if error is not None]
    if errors:
        raise errors[0]
    return [future.result() for future in futures]


def _timed(queued: float, outcomes: Sequence[Outcome]) -> Outcomes:
    runs = [(outcome.started, outcome.finished) for outcome in outcomes if isinstance(outcome, Embedded)]
    started = min((start for start, _ in runs), default=queued)
    finished = max((finish for _, finish in runs), default=queued)
    return Outcomes(tuple(outcomes), (started - queued) * 1e3, (finished - started) * 1e3)
