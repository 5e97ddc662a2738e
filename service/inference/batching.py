"""The bounded queue, and the one supervised thread that owns the engine.

There is no timer: whenever the engine is free the thread takes what is queued, so a lone image waits for
nothing and a crowd is batched. Admission counts images; what fails, fails alone.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from service.inference.engine import Engine, EngineError, check

logger = logging.getLogger(__name__)

RATE_SMOOTHING = 0.2
STOP_SECONDS = 20.0


class QueueFull(RuntimeError):
    """More images are admitted than the queue takes; try again in `retry_after` seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"Too many images are waiting for the model; try again in {retry_after} s.")
        self.retry_after = retry_after


class WorkerStopped(RuntimeError):
    """The thread that runs the model is not running; the message says why."""


class EmbeddingFailed(RuntimeError):
    """The model gave no usable embedding for one image."""

    def __init__(self) -> None:
        super().__init__("The model gave no usable embedding for this image; the log has the reason.")


@dataclass(frozen=True, eq=False)
class Embedded:
    """One crop's `embedding` float32 [D] and, when asked for, `attention` float32 [L, L]; when the run was, in s."""

    embedding: NDArray[np.float32]
    attention: NDArray[np.float32] | None
    started: float
    finished: float


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What became of each crop, by its position; milliseconds until the first run began, and from then on."""

    outcomes: tuple[Embedded | EmbeddingFailed, ...]
    queue_ms: float
    inference_ms: float


@dataclass(frozen=True, eq=False)
class _Item:
    crop: NDArray[np.uint8]
    attention: bool
    future: asyncio.Future[Embedded | EmbeddingFailed]
    queued: float = field(default_factory=time.perf_counter)

    def settle(self, outcome: Embedded | EmbeddingFailed | WorkerStopped) -> None:
        """Hands the outcome to the event loop; the loop may be gone when the process is stopping."""
        try:
            self.future.get_loop().call_soon_threadsafe(self._settle, outcome)
        except RuntimeError:
            logger.debug("an embedding came after its event loop had closed")

    def _settle(self, outcome: Embedded | EmbeddingFailed | WorkerStopped) -> None:
        if self.future.done():
            return
        if isinstance(outcome, WorkerStopped):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


class BatchWorker:
    """Embeds crops for any number of requests with one engine in one thread."""

    def __init__(self, engine: Engine, max_batch: int, queue_limit: int) -> None:
        self.engine = engine
        self.max_batch = max_batch
        self.queue_limit = queue_limit
        self.error: str | None = None
        self._rate = max(engine.images_per_second, 1e-3)
        self._admitted = 0
        self._items: deque[_Item] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._supervise, name="resight-engine", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether the thread runs and takes images."""
        return self._thread.is_alive() and self.error is None

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        """Lets the thread finish what is queued and waits for it, at most `timeout` seconds: a device may hang."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if not self._thread.is_alive():
            return
        self._thread.join(timeout)
        if self._thread.is_alive():
            logger.error("the device hangs: the inference thread has not ended", extra={"waited_s": timeout})

    @contextmanager
    def admission(self, images: int) -> Iterator[None]:
        """Holds places for `images` from before they are decoded until they are answered.

        Only the event loop's thread may enter. Raises QueueFull for the whole request when there
        are not enough places, and WorkerStopped when nobody would ever serve them.
        """
        self._check_alive()
        if self._admitted + images > self.queue_limit:
            raise QueueFull(max(1, math.ceil(self._admitted / self._rate)))
        self._admitted += images
        try:
            yield
        finally:
            self._admitted -= images

    async def embed(self, crops: Sequence[NDArray[np.uint8]], attention: bool = False) -> Outcomes:
        """Embeds n >= 1 crops [H, W, 3], or says of each why not; call it within `admission`.

        Raises WorkerStopped. Cancelling the awaiting task drops what the thread has not taken yet.
        """
        loop = asyncio.get_running_loop()
        items = [_Item(crop, attention, loop.create_future()) for crop in crops]
        with self._changed:
            self._check_alive()
            self._items.extend(items)
            self._changed.notify()
        try:
            outcomes = await asyncio.gather(*(item.future for item in items))
        finally:
            for item in items:
                item.future.cancel()
        return _timed(items[0].queued, outcomes)

    def _check_alive(self) -> None:
        if not self.alive or self._stopping:
            raise WorkerStopped(f"The inference thread is not running: {self.error or 'it was stopped'}.")

    def _supervise(self) -> None:
        reason: BaseException | None = None
        try:
            self._loop()
        except BaseException as error:  # Whatever ends this thread, nobody may wait for it for ever.
            reason = error
            logger.critical("the inference thread died", exc_info=error)
        with self._changed:
            if reason is not None:
                self.error = f"it died of {type(reason).__name__}: {reason}"
            left = list(self._items)
            self._items.clear()
        for item in left:
            item.settle(WorkerStopped("The inference thread stopped before it came to this image."))

    def _loop(self) -> None:
        while batch := self._take():
            try:
                self._run(batch)
            except BaseException:
                for item in batch:
                    item.settle(WorkerStopped("The inference thread stopped while it held this image."))
                raise

    def _take(self) -> list[_Item]:
        """Waits for images and takes up to a batch of those still wanted; empty when it is time to stop."""
        with self._changed:
            while True:
                batch: list[_Item] = []
                while self._items and len(batch) < self.max_batch:
                    item = self._items.popleft()
                    if not item.future.cancelled():
                        batch.append(item)
                if batch or self._stopping:
                    return batch
                self._changed.wait()

    def _run(self, batch: Sequence[_Item]) -> None:
        try:
            results = self._infer(batch)
        except Exception as error:
            if len(batch) > 1:
                logger.warning("a batch failed; running its images one by one", exc_info=error)
                for item in batch:
                    self._run([item])
                return
            logger.error("an image failed in the model", exc_info=error)
            batch[0].settle(EmbeddingFailed())
            return
        for item, result in zip(batch, results, strict=True):
            item.settle(result)

    def _infer(self, batch: Sequence[_Item]) -> list[Embedded]:
        started = time.perf_counter()
        attention = any(item.attention for item in batch)
        inference = self.engine.run(np.stack([item.crop for item in batch]), attention)
        check(inference, len(batch), self.engine.info)
        if attention and inference.attention is None:
            raise EngineError("The model gave no attention.")
        finished = time.perf_counter()
        if 2 * len(batch) >= self.max_batch:  # lone images run at a lower rate than a queue would
            rate = len(batch) / max(finished - started, 1e-6)
            self._rate += RATE_SMOOTHING * (rate - self._rate)
        found = inference.attention if inference.attention is not None else [None] * len(batch)
        maps = (one if item.attention else None for item, one in zip(batch, found, strict=True))
        rows = zip(inference.embeddings, maps, strict=True)
        return [Embedded(embedding, weights, started, finished) for embedding, weights in rows]


def _timed(queued: float, outcomes: Sequence[Embedded | EmbeddingFailed]) -> Outcomes:
    runs = [(outcome.started, outcome.finished) for outcome in outcomes if isinstance(outcome, Embedded)]
    started = min((start for start, _ in runs), default=queued)
    finished = max((finish for _, finish in runs), default=queued)
    return Outcomes(tuple(outcomes), (started - queued) * 1e3, (finished - started) * 1e3)
