"""The queue and its thread: batching, admission, and faults that stay with the one who caused them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from numpy.typing import NDArray

from service.inference.batching import BatchWorker
from service.inference.engine import Engine, Inference
from service.inference.model import ModelInfo
from service.inference.outcomes import Embedded, EmbeddingFailed, Outcomes, QueueFull, TooLate, WorkerStopped
from tests.engine_doubles import FaultyEngine
from tests.eventually import until

POISON = 13


def crop(info: ModelInfo, value: int) -> NDArray[np.uint8]:
    return np.full((info.height, info.width, 3), value, np.uint8)


def no_other() -> Engine:
    raise OSError("no device left")


@contextmanager
def running(
    engine: FaultyEngine, max_batch: int = 8, queue_limit: int = 64, reload: Callable[[], Engine] = no_other
) -> Iterator[BatchWorker]:
    worker = BatchWorker(engine, reload, max_batch, queue_limit)
    worker.start()
    try:
        yield worker
    finally:
        engine.gate.set()
        worker.stop()


def directions(answer: Outcomes) -> list[int | None]:
    """Where each embedding points; None for what failed."""
    return [int(one.embedding.argmax()) if isinstance(one, Embedded) else None for one in answer.outcomes]


def raise_on_poison(crops: NDArray[np.uint8], inference: Inference) -> None:
    if np.any(crops[:, 0, 0, 0] == POISON):
        raise ValueError("poison")


def nan_on_poison(crops: NDArray[np.uint8], inference: Inference) -> None:
    inference.embeddings[crops[:, 0, 0, 0] == POISON] = np.nan


def die_on_poison(crops: NDArray[np.uint8], inference: Inference) -> None:
    if np.any(crops[:, 0, 0, 0] == POISON):
        raise SystemExit("killed")


def test_every_request_gets_its_own_rows_back(model_info: ModelInfo) -> None:
    async def ask(worker: BatchWorker) -> list[Outcomes]:
        requests = [[1, 2, 3], [4], [5, 6]]
        return await asyncio.gather(*(worker.embed([crop(model_info, v) for v in values]) for values in requests))

    with running(FaultyEngine(model_info)) as worker:
        answers = asyncio.run(ask(worker))
    assert [directions(answer) for answer in answers] == [[1, 2, 3], [4], [5, 6]]
    assert all(one.attention is None for a in answers for one in a.outcomes if isinstance(one, Embedded))
    assert all(answer.queue_ms >= 0 and answer.inference_ms >= 0 for answer in answers)


def test_what_queues_while_the_engine_works_becomes_one_batch(model_info: ModelInfo) -> None:
    engine = FaultyEngine(model_info)

    async def ask(worker: BatchWorker) -> None:
        engine.gate.clear()
        first = asyncio.create_task(worker.embed([crop(model_info, 0)]))
        await asyncio.to_thread(engine.entered.wait, 10)
        rest = [asyncio.create_task(worker.embed([crop(model_info, value)])) for value in range(1, 12)]
        await asyncio.sleep(0)
        engine.gate.set()
        await asyncio.gather(first, *rest)

    with running(engine, max_batch=8) as worker:
        asyncio.run(ask(worker))
    assert engine.batches == [1, 8, 3]


def test_crops_of_a_request_are_queued_when_they_fill_a_batch_or_are_all_there(model_info: ModelInfo) -> None:
    async def ask(worker: BatchWorker) -> Outcomes:
        with worker.feed() as feed:
            for place in range(4):
                assert worker.queued == 0
                feed.add(place, crop(model_info, place))
            await asyncio.to_thread(until, lambda: worker.batches[4] == 1)
            feed.add(4, crop(model_info, 4))
            await asyncio.sleep(0.02)  # time for what must not happen
            assert sum(worker.batches.values()) == 1
            return await feed.outcomes()

    with running(FaultyEngine(model_info), max_batch=4) as worker:
        answer = asyncio.run(ask(worker))
        assert worker.batches == {4: 1, 1: 1}
    assert directions(answer) == [0, 1, 2, 3, 4]


def test_attention_comes_only_to_who_asked(model_info: ModelInfo) -> None:
    async def ask(worker: BatchWorker) -> tuple[Outcomes, Outcomes]:
        return await asyncio.gather(
            worker.embed([crop(model_info, 1)], attention=True), worker.embed([crop(model_info, 2)])
        )

    with running(FaultyEngine(model_info)) as worker:
        explained, plain = asyncio.run(ask(worker))
    [with_attention], [without] = explained.outcomes, plain.outcomes
    assert isinstance(with_attention, Embedded)
    assert with_attention.attention is not None
    assert with_attention.attention.shape == (model_info.positions, model_info.positions)
    assert isinstance(without, Embedded)
    assert without.attention is None


@pytest.mark.parametrize("fault", [raise_on_poison, nan_on_poison])
def test_a_bad_image_fails_alone(model_info: ModelInfo, fault: object) -> None:
    engine = FaultyEngine(model_info, raise_on_poison if fault is raise_on_poison else nan_on_poison)

    async def ask(worker: BatchWorker) -> list[Outcomes]:
        requests = [[1, POISON, 2], [3], [POISON]]
        embeds = (worker.embed([crop(model_info, v) for v in values]) for values in requests)
        return await asyncio.gather(*embeds)

    with running(engine) as worker:
        answers = asyncio.run(ask(worker))
        assert worker.trouble is None
        assert worker.failures == 2
    assert [directions(answer) for answer in answers] == [[1, None, 2], [3], [None]]
    assert isinstance(answers[2].outcomes[0], EmbeddingFailed)
    assert (answers[2].queue_ms, answers[2].inference_ms) == (0, 0)


def test_admission_counts_images_and_says_when_to_come_back(model_info: ModelInfo) -> None:
    with running(FaultyEngine(model_info), queue_limit=64) as worker:
        with worker.admission(60):
            with worker.admission(4), pytest.raises(QueueFull) as caught, worker.admission(1):
                pass
            assert caught.value.retry_after == 1  # 64 images at 100 a second
            with worker.admission(4):
                pass
        with worker.admission(64):
            pass


def test_places_are_given_back_after_a_failure(model_info: ModelInfo) -> None:
    with running(FaultyEngine(model_info, raise_on_poison), queue_limit=64) as worker:

        async def ask() -> None:
            with worker.admission(64):
                await worker.embed([crop(model_info, POISON)])
                raise ValueError("and something else went wrong")

        with pytest.raises(ValueError, match="something else"):
            asyncio.run(ask())
        with worker.admission(64):
            pass


def test_cancelled_images_are_dropped_before_they_run(model_info: ModelInfo) -> None:
    engine = FaultyEngine(model_info)

    async def ask(worker: BatchWorker) -> None:
        engine.gate.clear()
        first = asyncio.create_task(worker.embed([crop(model_info, 1)]))
        await asyncio.to_thread(engine.entered.wait, 10)
        given_up = asyncio.create_task(worker.embed([crop(model_info, 2)] * 5))
        patient = asyncio.create_task(worker.embed([crop(model_info, 3)]))
        await asyncio.sleep(0)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        engine.gate.set()
        await asyncio.gather(first, patient)

    with running(engine) as worker:
        asyncio.run(ask(worker))
    assert engine.batches == [1, 1]


async def two_behind_poison(worker: BatchWorker, engine: FaultyEngine) -> list[Outcomes | BaseException]:
    """What becomes of the poison that the engine holds, and of an image that waits behind it."""
    engine.gate.clear()
    first = asyncio.create_task(worker.embed([crop(engine.info, POISON)]))
    await asyncio.to_thread(engine.entered.wait, 10)
    waiting = asyncio.create_task(worker.embed([crop(engine.info, 1)]))
    await asyncio.sleep(0)
    engine.gate.set()
    return list(await asyncio.gather(first, waiting, return_exceptions=True))


def test_an_engine_that_dies_for_good_fails_everybody_at_once(model_info: ModelInfo) -> None:
    engine = FaultyEngine(model_info, die_on_poison)
    with running(engine) as worker:
        answers = asyncio.run(two_behind_poison(worker, engine))
        assert all(isinstance(answer, WorkerStopped) for answer in answers)
        until(lambda: "no device left" in (worker.trouble or ""))
        assert "SystemExit: killed" in (worker.trouble or "")
        with pytest.raises(WorkerStopped, match="killed"):
            asyncio.run(worker.embed([crop(model_info, 1)]))
        with pytest.raises(WorkerStopped), worker.admission(1):
            pass


def test_an_engine_that_dies_is_replaced_without_hands(model_info: ModelInfo) -> None:
    engine, other = FaultyEngine(model_info, die_on_poison), FaultyEngine(model_info)
    with running(engine, reload=lambda: other) as worker:
        answers = asyncio.run(two_behind_poison(worker, engine))
        assert all(isinstance(answer, WorkerStopped) for answer in answers)
        until(lambda: worker.trouble is None)
        assert directions(asyncio.run(worker.embed([crop(model_info, 5)]))) == [5]
    assert (worker.engine, worker.renewals, other.batches) == (other, 1, [1])


def test_replacing_goes_on_until_it_helps(model_info: ModelInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.inference.batching.RENEWAL_SECONDS", 0.001)
    engine, tries = FaultyEngine(model_info, die_on_poison), 0

    def third_time() -> Engine:
        nonlocal tries
        tries += 1
        return FaultyEngine(model_info) if tries == 3 else no_other()

    with running(engine, reload=third_time) as worker:
        asyncio.run(two_behind_poison(worker, engine))
        until(lambda: worker.trouble is None)
        assert directions(asyncio.run(worker.embed([crop(model_info, 5)]))) == [5]
    assert tries == 3


def test_an_engine_that_only_ever_dies_is_not_replaced_in_circles(model_info: ModelInfo) -> None:
    loaded = []

    def another() -> Engine:
        loaded.append(FaultyEngine(model_info, die_on_poison))
        return loaded[-1]

    with running(FaultyEngine(model_info, die_on_poison), reload=another) as worker:
        with pytest.raises(WorkerStopped):
            asyncio.run(worker.embed([crop(model_info, POISON)]))
        until(lambda: worker.renewals == 1 and worker.trouble is None)
        with pytest.raises(WorkerStopped):
            asyncio.run(worker.embed([crop(model_info, POISON)]))
        until(lambda: worker.trouble is not None)
    assert len(loaded) == 1  # the next one would have come after a pause


def test_an_engine_that_fails_at_everything_is_replaced(model_info: ModelInfo) -> None:
    def fail(crops: NDArray[np.uint8], inference: Inference) -> None:
        raise ValueError("device lost")

    other = FaultyEngine(model_info)
    with running(FaultyEngine(model_info, fail), reload=lambda: other) as worker:
        for _ in range(7):
            [outcome] = asyncio.run(worker.embed([crop(model_info, 1)])).outcomes
            assert isinstance(outcome, EmbeddingFailed)
        assert worker.trouble is None
        asyncio.run(worker.embed([crop(model_info, 1)]))
        until(lambda: worker.engine is other and worker.trouble is None)
        assert directions(asyncio.run(worker.embed([crop(model_info, 5)]))) == [5]


def test_an_engine_that_breaks_in_two_runs_is_replaced_once(model_info: ModelInfo) -> None:
    both_in = threading.Barrier(2)

    def die(crops: NDArray[np.uint8], inference: Inference) -> None:
        both_in.wait(10)
        raise SystemExit("killed")

    engine, other = FaultyEngine(model_info, die), FaultyEngine(model_info)
    engine.runs_at_once = 2

    async def ask(worker: BatchWorker) -> list[Outcomes | BaseException]:
        requests = (worker.embed([crop(model_info, value)] * 4) for value in range(2))
        return await asyncio.gather(*requests, return_exceptions=True)

    with running(engine, max_batch=4, reload=lambda: other) as worker:
        assert all(isinstance(answer, WorkerStopped) for answer in asyncio.run(ask(worker)))
        until(lambda: worker.engine is other and worker.trouble is None)
        time.sleep(0.05)  # for a thread that still thinks of the first engine
        assert directions(asyncio.run(worker.embed([crop(model_info, 5)]))) == [5]
        assert worker.renewals == 1


def test_who_waits_too_long_is_told_and_dropped(model_info: ModelInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.inference.feed.DEADLINE_SECONDS", 0.02)
    engine = FaultyEngine(model_info)

    async def ask(worker: BatchWorker) -> None:
        engine.gate.clear()
        with pytest.raises(TooLate):
            await worker.embed([crop(model_info, 1)])
        with pytest.raises(TooLate):
            await worker.embed([crop(model_info, 2)] * 3)
        engine.gate.set()
        monkeypatch.setattr("service.inference.feed.DEADLINE_SECONDS", 10.0)
        assert directions(await worker.embed([crop(model_info, 4)])) == [4]

    with running(engine) as worker:
        asyncio.run(ask(worker))
    assert engine.batches == [1, 1]


def test_a_device_that_hangs_is_no_ready_one(model_info: ModelInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FaultyEngine(model_info)

    async def ask(worker: BatchWorker) -> None:
        engine.gate.clear()
        waiting = asyncio.create_task(worker.embed([crop(model_info, 1)]))
        await asyncio.to_thread(engine.entered.wait, 10)
        assert worker.trouble is None
        monkeypatch.setattr("service.inference.batching.HANG_SECONDS", 0.0)
        assert "the device hangs" in (worker.trouble or "")
        with pytest.raises(WorkerStopped, match="hangs"), worker.admission(1):
            pass
        engine.gate.set()
        await waiting
        assert worker.trouble is None

    with running(engine) as worker:
        asyncio.run(ask(worker))


def test_stopping_finishes_what_is_queued_and_takes_no_more(model_info: ModelInfo) -> None:
    engine = FaultyEngine(model_info)

    async def ask(worker: BatchWorker) -> Outcomes:
        engine.gate.clear()
        queued = asyncio.create_task(worker.embed([crop(model_info, value) for value in range(20)]))
        await asyncio.to_thread(engine.entered.wait, 10)
        stopping = asyncio.create_task(asyncio.to_thread(worker.stop))
        while not worker._stopping:
            await asyncio.sleep(0.001)
        engine.gate.set()
        await stopping
        return await queued

    with running(engine, max_batch=4) as worker:
        assert directions(asyncio.run(ask(worker))) == list(range(20))
        assert worker.trouble is not None
        with pytest.raises(WorkerStopped):
            asyncio.run(worker.embed([crop(model_info, 1)]))


def test_a_device_that_hangs_does_not_hold_up_the_end(model_info: ModelInfo, caplog: pytest.LogCaptureFixture) -> None:
    engine = FaultyEngine(model_info)

    async def ask(worker: BatchWorker) -> None:
        engine.gate.clear()
        waiting = asyncio.create_task(worker.embed([crop(model_info, 1)]))
        await asyncio.to_thread(engine.entered.wait, 10)
        worker.stop(timeout=0.01)
        engine.gate.set()
        await waiting

    with running(engine) as worker, caplog.at_level("ERROR", "service.inference.batching"):
        asyncio.run(ask(worker))
    assert "the device hangs" in caplog.text


def test_the_rate_is_learnt_from_well_filled_batches_only(model_info: ModelInfo) -> None:
    engine = FaultyEngine(model_info)
    engine.images_per_second = 1.0

    async def ask(worker: BatchWorker, images: int) -> int:
        await worker.embed([crop(model_info, 1)] * images)
        with worker.admission(1000), pytest.raises(QueueFull) as caught, worker.admission(1):
            pass
        return caught.value.retry_after

    with running(engine, max_batch=8, queue_limit=1000) as worker:
        assert asyncio.run(ask(worker, 3)) == 1000  # a second each, as measured at start
        assert asyncio.run(ask(worker, 8)) < 1000
