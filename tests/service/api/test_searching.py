"""Queries that wait together are searched together, and fail alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import cast

import numpy as np
import pytest

from service.api import searching
from service.api.searching import LEAST_WAITING, MOST_TOGETHER, Searches
from service.gallery.gallery import Gallery
from service.gallery.records import Answer, GalleryUnavailable, InvalidEmbedding, Probe, QueryOptions
from service.inference.outcomes import QueueFull, TooLate


class Counting:
    """Answers a query with its `top_k` in `searched`, refuses that of 99, breaks at that of 100, is away at 98."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.batches: list[list[int]] = []

    def query_all(self, probes: Sequence[Probe]) -> list[Answer | InvalidEmbedding]:
        numbers = [probe.options.top_k for probe in probes]
        self.batches.append(numbers)
        assert self.gate.wait(10)
        if 100 in numbers:
            raise MemoryError
        if 98 in numbers:
            raise GalleryUnavailable("away")
        return [InvalidEmbedding("refused") if n == 99 else Answer(None, (), n, exact=True) for n in numbers]


def probe(number: int, exact: bool = False) -> Probe:
    return Probe(np.zeros((1, 4), np.float32), QueryOptions(top_k=number, exact=exact))


def test_what_waits_is_searched_at_once_and_fails_alone() -> None:
    gallery = Counting()

    async def main() -> list[Answer | BaseException]:
        searches = Searches(cast(Gallery, gallery))
        first = asyncio.gather(*(searches.answer(probe(n)) for n in range(1, 4)))
        await asyncio.sleep(0.05)
        rest = [asyncio.create_task(searches.answer(probe(n))) for n in (*range(4, 4 + MOST_TOGETHER), 99, 100, 7)]
        await asyncio.sleep(0.05)
        rest[2].cancel()
        gallery.gate.set()
        answers = await first + await asyncio.gather(*rest, return_exceptions=True)
        searches.close()
        return answers

    answers = asyncio.run(main())
    numbers = [*range(1, 4 + MOST_TOGETHER), 99, 100, 7]
    for number, answer in zip(numbers, answers, strict=True):
        match number:
            case 6:
                assert isinstance(answer, asyncio.CancelledError)
            case 99:
                assert isinstance(answer, InvalidEmbedding)
            case 100:
                assert isinstance(answer, MemoryError)
            case _:
                assert isinstance(answer, Answer)
                assert answer.searched == number
    waiting = [n for n in range(4, 4 + MOST_TOGETHER) if n != 6]
    assert gallery.batches == [[1, 2, 3], [*waiting, 99], [100, 7], [100], [7]]


def test_a_gallery_that_is_away_is_not_asked_again_for_each() -> None:
    gallery = Counting()

    async def main() -> None:
        searches = Searches(cast(Gallery, gallery))
        first = asyncio.create_task(searches.answer(probe(1)))
        await asyncio.sleep(0.05)
        waiting = [asyncio.create_task(searches.answer(probe(98))) for _ in range(MOST_TOGETHER + 3)]
        await asyncio.sleep(0.05)
        gallery.gate.set()
        assert (await first).searched == 1
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(one) for one in answers] == [GalleryUnavailable] * len(waiting)
        assert (await searches.answer(probe(2))).searched == 2
        with pytest.raises(GalleryUnavailable):
            await searches.answer(probe(98))
        searches.close()

    asyncio.run(main())
    assert gallery.batches == [[1], [98] * MOST_TOGETHER, [2], [98]]


def test_a_query_that_alone_finds_the_gallery_away_fails_alone() -> None:
    gallery = Counting()

    async def main() -> None:
        searches = Searches(cast(Gallery, gallery))
        alone = asyncio.create_task(searches.answer(probe(98)))
        await asyncio.sleep(0.05)
        next_one = asyncio.create_task(searches.answer(probe(1)))
        await asyncio.sleep(0.05)
        gallery.gate.set()
        with pytest.raises(GalleryUnavailable):
            await alone
        assert (await next_one).searched == 1
        searches.close()

    asyncio.run(main())
    assert gallery.batches == [[98], [1]]


def test_one_by_one_nothing_is_searched_for_who_has_gone() -> None:
    gallery = Counting()
    gallery.gate.set()
    alone, go_on = threading.Event(), threading.Event()
    answer = gallery.query_all

    def query_all(probes: Sequence[Probe]) -> list[Answer | InvalidEmbedding]:
        if len(probes) == 1:
            alone.set()
            assert go_on.wait(10)
        return answer(probes)

    gallery.query_all = query_all  # type: ignore[method-assign]

    async def main() -> None:
        searches = Searches(cast(Gallery, gallery))
        tasks = [asyncio.create_task(searches.answer(probe(n))) for n in (1, 2, 100, 3)]
        assert await asyncio.to_thread(alone.wait, 10)
        tasks[1].cancel()
        await asyncio.sleep(0.05)
        go_on.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(one) for one in answers] == [Answer, asyncio.CancelledError, MemoryError, Answer]
        searches.close()

    asyncio.run(main())
    assert gallery.batches == [[1, 2, 100, 3], [1], [100], [3]]


def test_it_goes_on_after_a_pause() -> None:
    gallery = Counting()
    gallery.gate.set()

    async def main() -> None:
        searches = Searches(cast(Gallery, gallery))
        for number in (1, 2):
            assert (await searches.answer(probe(number))).searched == number
            await asyncio.sleep(0)
        with pytest.raises(InvalidEmbedding):
            await searches.answer(probe(99))
        searches.close()

    asyncio.run(main())
    assert gallery.batches == [[1], [2], [99]]


def test_what_asks_for_every_crop_holds_up_nobody_else() -> None:
    gallery = Counting()
    slow = threading.Event()
    answer = gallery.query_all

    def query_all(probes: Sequence[Probe]) -> list[Answer | InvalidEmbedding]:
        if probes[0].options.exact:
            assert slow.wait(10)
        return answer(probes)

    gallery.gate.set()
    gallery.query_all = query_all  # type: ignore[method-assign]

    async def main() -> None:
        searches = Searches(cast(Gallery, gallery))
        exact = [asyncio.create_task(searches.answer(probe(n, exact=True))) for n in (1, 2)]
        others = await asyncio.gather(*(searches.answer(probe(n)) for n in (3, 4)))
        assert [one.searched for one in others] == [3, 4]
        slow.set()
        assert [one.searched for one in await asyncio.gather(*exact)] == [1, 2]
        searches.close()

    asyncio.run(main())
    assert gallery.batches == [[3, 4], [1, 2]]


@pytest.mark.parametrize("exact", [False, True])
def test_more_than_may_wait_is_refused_until_there_is_room(exact: bool) -> None:
    gallery = Counting()

    async def main() -> None:
        searches = Searches(cast(Gallery, gallery))
        waiting = [asyncio.create_task(searches.answer(probe(1 + n % 90, exact))) for n in range(LEAST_WAITING)]
        await asyncio.sleep(0.05)
        with pytest.raises(QueueFull, match=r"Too many queries .* try again in \d+ s\.") as refused:
            await searches.answer(probe(1, exact))
        assert refused.value.retry_after >= 1
        with pytest.raises(QueueFull):
            searches.require_room(exact)
        searches.require_room(not exact)
        waiting.pop().cancel()  # whose client is gone
        await asyncio.sleep(0)
        searches.require_room(exact)
        gallery.gate.set()
        await asyncio.gather(*waiting)
        searches.require_room(exact)
        searches.close()

    asyncio.run(main())
    assert sum(map(len, gallery.batches)) == LEAST_WAITING - 1


@pytest.mark.parametrize(("seconds", "may_wait"), [(0.01, 400), (1.0, LEAST_WAITING)])
def test_what_may_wait_follows_from_what_a_query_takes(
    seconds: float, may_wait: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    gallery = Counting()
    gallery.gate.set()
    answer = gallery.query_all

    def query_all(probes: Sequence[Probe]) -> list[Answer | InvalidEmbedding]:
        nonlocal now
        now += seconds
        return answer(probes)

    gallery.query_all = query_all  # type: ignore[method-assign]
    monkeypatch.setattr(searching, "perf_counter", lambda: now)

    async def main() -> int:
        searches = Searches(cast(Gallery, gallery))
        await searches.answer(probe(1))
        gallery.gate.clear()
        waiting = [asyncio.create_task(searches.answer(probe(1))) for _ in range(1000)]
        await asyncio.sleep(0.05)
        refused = sum(task.done() for task in waiting)
        gallery.gate.set()
        await asyncio.gather(*waiting, return_exceptions=True)
        searches.close()
        return 1000 - refused

    assert asyncio.run(main()) == pytest.approx(may_wait, abs=1)


@pytest.mark.parametrize("exact", [False, True])
def test_what_waits_for_too_long_is_dropped(exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "DEADLINE_SECONDS", 0.2)
    gallery = Counting()

    async def main() -> None:
        searches = Searches(cast(Gallery, gallery))
        under_way = asyncio.create_task(searches.answer(probe(1, exact)))
        await asyncio.sleep(0.05)
        dropped = await asyncio.gather(*(searches.answer(probe(2, exact)) for _ in range(3)), return_exceptions=True)
        with pytest.raises(TooLate, match="The query waited too long"):
            await under_way
        assert [type(one) for one in dropped] == [TooLate] * 3
        gallery.gate.set()
        monkeypatch.undo()
        assert (await searches.answer(probe(3, exact))).searched == 3
        searches.close()

    asyncio.run(main())
    assert gallery.batches == [[1], [3]]


def test_a_timeout_of_the_gallery_is_its_own() -> None:
    gallery = Counting()

    def query_all(probes: Sequence[Probe]) -> list[Answer | InvalidEmbedding]:
        raise TimeoutError("of the gallery")

    gallery.query_all = query_all  # type: ignore[method-assign]

    async def main() -> None:
        searches = Searches(cast(Gallery, gallery))
        with pytest.raises(TimeoutError, match="of the gallery"):
            await searches.answer(probe(1))
        searches.close()

    asyncio.run(main())
