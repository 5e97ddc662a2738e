"""Enrolling many items over HTTP: batches, several requests in flight, one outcome for every item."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread

from service.cli.items import Item, SourceError
from service.client import Resight
from service.client.answers import Enrolled, ResightError

BATCH_IMAGES = 32
BATCH_BYTES = 48 * 2**20  # below the service's 64 MiB a request, with room for the form around the files
IN_FLIGHT = 3

# Refusals that may be one item's fault: the batch is then sent item by item, so that the others get through.
MAYBE_ONE_ITEM = frozenset({400, 413, 415, 422, 500})


@dataclass(frozen=True)
class Outcome:
    """What became of one item: the service's `status`, the `crop_id` if it is enrolled, the `reason` if not."""

    item: Item
    status: str
    crop_id: str | None = None
    reason: str | None = None


Todo = SimpleQueue[list[Item] | None]
Done = SimpleQueue[list[Outcome] | Exception]


def enrol_all(client: Resight, items: Iterable[Item], *, in_flight: int = IN_FLIGHT) -> Iterator[list[Outcome]]:
    """Enrol `items` and yield the outcomes of each batch as it is acknowledged, one for every item.

    Items that cannot be read or that the service refuses are `failed` and do not stop the others.
    Raises ResightError when the service cannot be used any more; the outcomes yielded before hold.
    The threads are daemons: who stops iterating, or is interrupted, does not wait for the requests in flight.
    """
    todo: Todo = SimpleQueue()
    done: Done = SimpleQueue()
    for number in range(in_flight):
        Thread(target=_work, args=(client, todo, done), name=f"enrol-{number}", daemon=True).start()
    waiting = 0
    try:
        for batch in batches(items):
            if waiting == in_flight:
                yield _next(done)
                waiting -= 1
            todo.put(batch)
            waiting += 1
        for _ in range(waiting):
            yield _next(done)
    finally:
        for _ in range(in_flight):
            todo.put(None)


def batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    """The items in order, in groups that fit one request."""
    batch: list[Item] = []
    size = 0
    for item in items:
        if batch and (len(batch) == BATCH_IMAGES or size + item.size > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += item.size
    if batch:
        yield batch


def enrol_batch(client: Resight, items: Sequence[Item]) -> list[Outcome]:
    """Read and enrol one request's items; an outcome for each. Raises ResightError as `enrol_all` does."""
    readable: list[tuple[Item, bytes]] = []
    outcomes: list[Outcome] = []
    for item in items:
        try:
            readable.append((item, item.read()))
        except SourceError as error:
            outcomes.append(Outcome(item, "failed", reason=str(error)))
    return outcomes + (_send(client, readable) if readable else [])


def labels(item: Item) -> dict[str, object]:
    """The item's labels for the service; its name goes along, so that an answer leads back to the file."""
    return {
        "identity": item.identity,
        "camera": item.camera,
        "captured_at": item.captured_at,
        "track": item.track,
        "meta": {"source": item.name},
    }


def _send(client: Resight, readable: Sequence[tuple[Item, bytes]]) -> list[Outcome]:
    try:
        answer = client.enrol(
            [data for _, data in readable], items=[labels(item) for item, _ in readable], on_error="skip"
        )
    except ResightError as error:
        if error.status not in MAYBE_ONE_ITEM:
            raise
        if len(readable) == 1:
            return [Outcome(readable[0][0], "failed", reason=str(error))]
        return [outcome for one in readable for outcome in _send(client, [one])]
    return [_outcome(readable[result.index][0], result) for result in answer.results]


def _outcome(item: Item, result: Enrolled) -> Outcome:
    reason = None if result.problem is None else str(result.problem)
    return Outcome(item, result.status, result.crop_id, reason)


def _work(client: Resight, todo: Todo, done: Done) -> None:
    while (batch := todo.get()) is not None:
        try:
            done.put(enrol_batch(client, batch))
        except Exception as error:  # for the thread that iterates, which would wait for ever otherwise
            done.put(error)


def _next(done: Done) -> list[Outcome]:
    outcome = done.get()
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
