"""The bounded queue, and the one supervised thread that hands batches to the engine.

There is no timer: whenever the engine is free the thread takes what is queued, so a lone image waits for
nothing and a crowd is batched. Admission counts images; what fails, fails alone. An engine that breaks is
loaded again.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from service.inference.engine import Engine, EngineError, check, self_test
from service.inference.feed import Feed, Item, settle
from service.inference.outcomes import Embedded, EmbeddingFailed, Outcomes, QueueFull, WorkerStopped
from service.priority import give_way

logger = logging.getLogger(__name__)

RATE_SMOOTHING = 0.2
STOP_SECONDS = 5.0
HANG_SECONDS = 60.0  # of one batch
DOUBT_FAILURES = 8  # in a row, after which it is asked whether pictures or engine are at fault
RENEWAL_SECONDS = 30.0


class BatchWorker:
    """Embeds crops for any number of requests with one engine in one thread.

    `reload` makes an engine of the same model anew, or raises; it is called in the thread, at once when the
    engine breaks, and again every `RENEWAL_SECONDS` while that does not help.
    """

    def __init__(self, engine: Engine, reload: Callable[[], Engine], max_batch: int, queue_limit: int) -> None:
        self.engine = engine
        self.max_batch = max_batch
        self.queue_limit = queue_limit
        self.batches: Counter[int] = Counter()  # how often each size was run
        self.failures = 0  # images without a usable embedding
        self.renewals = 0
        self._reload = reload
        self._error: str | None = None
        self._failed_in_a_row = 0
        self._proven = True  # the engine was tested when it was loaded, or has embedded something since
        self._running: dict[object, float] = {}  # since when each batch that the engine has runs
        self._batches_out = 0
        self._broken: BaseException | None = None
        self._rate = max(engine.images_per_second, 1e-3)
        self._admitted = 0
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._supervise, name="resight-engine", daemon=True)

    @property
    def trouble(self) -> str | None:
        """Why no images are taken, None while they are. Never blocks."""
        if self._error is not None:
            return f"the inference thread is not running: {self._error}"
        if not self._thread.is_alive() or self._stopping:
            return "the inference thread is not running: it was stopped"
        since = min(list(self._running.values()), default=math.inf)
        if (seconds := time.perf_counter() - since) > HANG_SECONDS:
            return f"the device hangs: the model has been at one batch for {seconds:.0f} s"
        return None

    @property
    def admitted(self) -> int:
        """Images that hold a place: they are decoded, wait or are run."""
        return self._admitted

    @property
    def queued(self) -> int:
        """Decoded images that wait for the engine."""
        return len(self._items)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        """Lets the thread finish what is queued and waits for it, at most `timeout` seconds: a device may hang."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
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
        self.require_room(images)
        self._admitted += images
        try:
            yield
        finally:
            self._admitted -= images

    def require_room(self, images: int = 1) -> None:
        """Raises what `admission` would raise: good for refusing before more is read."""
        self._check_alive()
        if self._admitted + images > self.queue_limit:
            raise QueueFull(self.retry_after)

    @property
    def retry_after(self) -> int:
        """Seconds in which the engine, at its measured rate, is through with what is admitted; at least 1."""
        return max(1, math.ceil(self._admitted / self._rate))

    async def embed(self, crops: Sequence[NDArray[np.uint8]], attention: bool = False) -> Outcomes:
        """Embeds n >= 1 crops [H, W, 3], or says of each why not; call it within `admission`.

        Raises WorkerStopped, and TooLate after `DEADLINE_SECONDS` in which none of them came out. Then, and
        when the awaiting task is cancelled, what the thread has not taken yet is dropped.
        """
        with self.feed(attention) as feed:
            for place, crop in enumerate(crops):
                feed.add(place, crop)
            return await feed.outcomes()

    @contextmanager
    def feed(self, attention: bool = False) -> Iterator[Feed]:
        """Takes the crops of a request one by one, so that the first batches are embedded while others are decoded.

        At the end of the block, what the thread has not taken yet is dropped.
        """
        feed = Feed(self._enqueue, attention, self.max_batch)
        try:
            yield feed
        finally:
            feed.drop()

    def _enqueue(self, items: Sequence[Item]) -> None:
        with self._changed:
            self._check_alive()
            self._items.extend(items)
            if self._startable():
                self._changed.notify()

    def _check_alive(self) -> None:
        trouble = self.trouble
        if trouble is not None:
            raise WorkerStopped(f"No picture can be embedded: {trouble}.")

    def _supervise(self) -> None:
        give_way()
        while not self._stopping:
            try:
                self._loop()
            except BaseException as error:  # Whatever ends the loop, nobody may wait for it for ever.
                logger.critical("inference broke", exc_info=error)
                self._fail_all(_reason(error))
                self._renew()

    def _fail_all(self, reason: str) -> None:
        """Takes no more images, and answers those that wait."""
        with self._changed:
            self._error = reason
            left = list(self._items)
            self._items.clear()
        stopped = WorkerStopped("The inference thread stopped before it came to this image.")
        settle(left, [stopped] * len(left))

    def _renew(self) -> None:
        """Loads the engine again until that works or it is time to stop.

        At once, but for an engine that breaks before it has embedded anything: that would go round in circles.
        """
        died, pause = self._error, 0.0 if self._proven else RENEWAL_SECONDS
        while not self._paused(pause):
            try:
                self.engine = self._reload()
            except Exception as error:
                logger.error("the model could not be loaded again", exc_info=error)
                self._error = f"{died}; loading the model again failed: {str(error).rstrip('.')}"
                pause = RENEWAL_SECONDS
                continue
            self._proven, self._failed_in_a_row = False, 0
            self.renewals += 1
            logger.warning("the model was loaded again", extra={"after": died})
            with self._changed:
                self._error = None
            return

    def _paused(self, seconds: float) -> bool:
        """Waits, and says whether it is time to stop."""
        with self._changed:
            return self._changed.wait_for(lambda: self._stopping, seconds)

    def _loop(self) -> None:
        """Lets threads run batches until the engine breaks, which is raised, or it is time to stop."""
        # Of daemons no end of the process waits, however long a device hangs; it would for those of an executor.
        runners = [
            threading.Thread(target=self._run_batches, name="resight-run", daemon=True)
            for _ in range(self.engine.runs_at_once)
        ]
        for runner in runners:
            runner.start()
        for runner in runners:
            runner.join()
        if self._broken is not None:  # of all runs that broke the last; none is a fault of the engine that comes next
            broken, self._broken = self._broken, None
            raise broken

    def _run_batches(self) -> None:
        give_way()
        while batch := self._take():
            self._run_or_break(batch)

    def _run_or_break(self, batch: list[Item]) -> None:
        try:
            self._run(batch)
        except BaseException as error:
            self._broken, self._error = error, _reason(error)  # before anybody hears of it and asks
            settle(batch, [WorkerStopped("The inference thread stopped while it held this image.")] * len(batch))
        finally:
            with self._changed:
                self._batches_out -= 1
                self._changed.notify_all()

    def _take(self) -> list[Item]:
        """Waits for images and the engine, and takes up to a batch of those still wanted; empty when it is to end."""
        with self._changed:
            while self._broken is None:
                if self._startable():
                    batch = self._wanted()
                    if batch:
                        self._batches_out += 1
                    if batch or self._stopping:
                        return batch
                self._changed.wait()
            return []

    def _startable(self) -> bool:
        """While the engine runs a batch and could run another, that begins only when it is full: images that wait a
        little longer are run together.
        """
        return not self._batches_out or len(self._items) >= self.max_batch

    def _wanted(self) -> list[Item]:
        batch: list[Item] = []
        while self._items and len(batch) < self.max_batch:
            item = self._items.popleft()
            if not item.future.cancelled():
                batch.append(item)
        return batch

    def _run(self, batch: Sequence[Item]) -> None:
        try:
            results = self._infer(batch)
        except Exception as error:
            if len(batch) > 1:
                logger.warning("a batch failed; running its images one by one", exc_info=error)
                for item in batch:
                    self._run([item])
                return
            logger.error("an image failed in the model", exc_info=error)
            self.failures += 1
            settle(batch, [EmbeddingFailed()])
            self._doubt()
            return
        self._proven, self._failed_in_a_row = True, 0
        settle(batch, results)

    def _doubt(self) -> None:
        """After failures in a row, tests the engine: bad pictures must not stop the service, a bad engine must."""
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= DOUBT_FAILURES:
            self_test(self.engine)
            self._failed_in_a_row = 0

    def _infer(self, batch: Sequence[Item]) -> list[Embedded]:
        started = time.perf_counter()
        attention = any(item.attention for item in batch)
        run = object()
        self._running[run] = started
        try:
            inference = self.engine.run(np.stack([item.crop for item in batch]), attention)
        finally:
            del self._running[run]
        check(inference, len(batch), self.engine.info)
        if attention and inference.attention is None:
            raise EngineError("The model gave no attention.")
        finished = time.perf_counter()
        self.batches[len(batch)] += 1
        if 2 * len(batch) >= self.max_batch:  # lone images run at a lower rate than a queue would
            rate = len(batch) / max(finished - started, 1e-6)
            self._rate += RATE_SMOOTHING * (rate - self._rate)
        found = inference.attention if inference.attention is not None else [None] * len(batch)
        maps = (one if item.attention else None for item, one in zip(batch, found, strict=True))
        rows = zip(inference.embeddings, maps, strict=True)
        return [Embedded(embedding, weights, started, finished) for embedding, weights in rows]


def _reason(error: BaseException) -> str:
    return f"it died of {type(error).__name__}: {error}"
