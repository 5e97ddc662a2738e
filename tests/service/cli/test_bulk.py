from __future__ import annotations

from collections import Counter
from functools import partial

import httpx
import pytest

from service.cli.bulk import BATCH_BYTES, BATCH_IMAGES, Outcome, batches, enrol_all, enrol_batch
from service.cli.items import Item, SourceError
from service.client import Resight
from service.client.answers import ResightError
from tests.drawn_crops import crop
from tests.serving import Served


def all_outcomes(client: Resight, items: list[Item], in_flight: int = 3) -> list[Outcome]:
    return [outcome for batch in enrol_all(client, items, in_flight=in_flight) for outcome in batch]


def item(number: int, view: int = 0, identity: str | None = None) -> Item:
    return Item(f"{number}-{view}.png", 1000, partial(crop, number, view), identity=identity, camera="c1")


def loading(name: str, data: bytes) -> Item:
    return Item(name, len(data), lambda: data)


def test_batches_keep_order_and_fit_a_request() -> None:
    small = [Item(str(number), 10, bytes) for number in range(70)]
    found = list(batches(small))
    assert [len(batch) for batch in found] == [BATCH_IMAGES, BATCH_IMAGES, 70 - 2 * BATCH_IMAGES]
    assert [one for batch in found for one in batch] == small
    large = [Item(str(number), BATCH_BYTES // 2, bytes) for number in range(5)]
    assert [len(batch) for batch in batches(large)] == [2, 2, 1]
    assert list(batches([Item("huge", 2 * BATCH_BYTES, bytes)])) != []
    assert list(batches([])) == []


def test_more_than_is_in_flight_is_enrolled_once_with_its_labels(service: Served) -> None:
    items = [item(number, view, identity=str(number)) for number in range(64) for view in range(3)]
    with Resight(service.url) as client:
        outcomes = all_outcomes(client, items, in_flight=2)
        assert Counter(outcome.status for outcome in outcomes) == {"created": 192}
        assert {outcome.item.name for outcome in outcomes} == {one.name for one in items}
        names = {outcome.crop_id: outcome.item.name for outcome in outcomes}
        kept = list(client.crops())
        assert {one.crop_id: (one.meta or {})["source"] for one in kept} == names
        assert all(f"{one.identity}-" in (one.meta or {})["source"] for one in kept)
        again = Counter(outcome.status for outcome in all_outcomes(client, items))
        assert again == {"duplicate": 192}


def test_what_fails_is_named_and_stops_nothing(service: Served) -> None:
    def gone() -> bytes:
        raise FileNotFoundError(2, "No such file or directory")

    items = [
        item(1),
        Item("gone.jpg", 5, gone),
        loading("text.jpg", b"no image"),
        loading("empty.jpg", b""),
        item(2, identity="John Smith"),
        item(3),
    ]
    with Resight(service.url) as client:
        outcomes = {outcome.item.name: outcome for outcome in all_outcomes(client, items)}
        assert len(list(client.crops())) == 2
    assert {name for name, outcome in outcomes.items() if outcome.status == "created"} == {"1-0.png", "3-0.png"}
    reasons = {name: outcome.reason for name, outcome in outcomes.items() if outcome.status == "failed"}
    assert reasons.keys() == {"gone.jpg", "text.jpg", "empty.jpg", "2-0.png"}
    assert "No such file" in str(reasons["gone.jpg"])
    assert "not a JPEG" in str(reasons["text.jpg"])
    assert "identity" in str(reasons["2-0.png"])


def refusing(status: int, many_only: bool) -> tuple[Resight, list[int]]:
    """A service that refuses requests (of several images only) and the number of images of each request."""
    sizes: list[int] = []

    def answer(request: httpx.Request) -> httpx.Response:
        size = request.read().count(b'name="images"')
        sizes.append(size)
        if size == 1 and many_only:
            result = {"index": 0, "status": "created", "crop_id": "x", "identity": None, "camera": "c1"}
            return httpx.Response(201, json={"results": [result], "model": {"name": "m", "sha256": "s"}})
        return httpx.Response(status, json={"title": "Refused", "detail": "No.", "status": status})

    return Resight("http://resight.test", retries=0, transport=httpx.MockTransport(answer)), sizes


def test_a_refused_batch_is_sent_item_by_item() -> None:
    client, sizes = refusing(413, many_only=True)
    outcomes = enrol_batch(client, [item(1), item(2), item(3)])
    assert [outcome.status for outcome in outcomes] == ["created"] * 3
    assert sizes == [3, 1, 1, 1]


def test_an_item_that_is_refused_alone_has_failed() -> None:
    client, sizes = refusing(500, many_only=False)
    assert [(one.status, one.reason) for one in enrol_batch(client, [item(1), item(2)])] == [("failed", "No.")] * 2
    assert sizes == [2, 1, 1]


@pytest.mark.parametrize("status", [401, 404, 409, 429, 503, 507])
def test_a_service_that_cannot_be_used_ends_it(status: int) -> None:
    client, sizes = refusing(status, many_only=False)
    with pytest.raises(ResightError, match="No"):
        list(enrol_all(client, [item(number) for number in range(64)], in_flight=1))
    assert set(sizes) == {BATCH_IMAGES}


def test_a_fault_in_a_thread_is_raised_where_it_is_waited_for() -> None:
    def broken() -> bytes:
        raise ZeroDivisionError

    client, _ = refusing(500, many_only=False)
    with pytest.raises(ZeroDivisionError):
        list(enrol_all(client, [Item("x", 1, broken)]))


def test_reading_says_what_is_wrong() -> None:
    def locked() -> bytes:
        raise RuntimeError("File 'x' is encrypted")

    with pytest.raises(SourceError, match="encrypted"):
        Item("x", 1, locked).read()
