"""The client's corrections, identities and erasures: what it sends, and what the real service makes of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import httpx
import pytest

from service.client import Resight, ResightError
from service.client.decisions import Identity, Renamed, identity_call
from tests.drawn_crops import crop
from tests.serving import Served

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
def resight(service: Served) -> Iterator[Resight]:
    with Resight(service.url) as client:
        yield client


def enrol(resight: Resight, *numbers: int, identity: str | None = None) -> list[str]:
    results = resight.enrol([crop(number) for number in numbers], identity=identity, camera="c1").results
    return [str(result.crop_id) for result in results]


def test_a_crop_is_corrected(resight: Resight) -> None:
    (crop_id,) = enrol(resight, 1, identity="a")
    corrected = resight.correct(crop_id, captured_at=NOON, camera=None, meta={"floor": 2}, not_identity=["b", "c"])
    assert (corrected.identity, corrected.camera, corrected.captured_at) == ("a", None, NOON)
    assert (corrected.meta, corrected.not_identity) == ({"floor": 2}, ("b", "c"))
    assert resight.crop(crop_id) == corrected
    assert [*resight.crops()] == [corrected]
    assert resight.correct(crop_id, not_identity="a").identity is None
    assert resight.correct(crop_id, not_identity=None).not_identity == ()
    with pytest.raises(ResightError, match="nothing is to be changed"):
        resight.correct(crop_id)
    with pytest.raises(ValueError, match="no time zone"):
        resight.correct(crop_id, captured_at=datetime(2026, 5, 1))


def test_identities_are_listed_renamed_and_merged(resight: Resight) -> None:
    first, _ = enrol(resight, 1, 2, identity="a")
    for number, name in enumerate((".", "..", "-1"), start=3):
        enrol(resight, number, identity=name)
    assert [known.identity for known in resight.identities(page_size=2)] == ["-1", ".", "..", "a"]
    assert resight.identity("a") == Identity("a", 2, ("c1",), None, None, first)
    assert resight.rename("..", ".") == Renamed(".", 1, merged=True)
    assert resight.rename(".", "b") == Renamed("b", 2, merged=False)
    resight.delete_identity("a")
    assert {known.identity: known.crops for known in resight.identities()} == {"-1": 1, "b": 2}
    with pytest.raises(ResightError) as caught:
        resight.delete_identity("a")
    assert caught.value.problem.type == "/problems/unknown-identity"


def test_erasures_come_back_as_receipts(resight: Resight) -> None:
    one, _, _ = enrol(resight, 1, 2, 3, identity="a")
    resight.correct(one, captured_at=NOON)
    receipt = resight.erase(camera="c1", before=datetime(2026, 5, 1, 13, tzinfo=UTC))
    assert (receipt.crops, receipt.wal_truncated) == (1, True)
    assert receipt.asked == {"camera": "c1", "before": "2026-05-01T13:00:00Z"}
    assert receipt.erased_at.tzinfo is not None
    assert resight.erase(identity="a").crops == 2
    assert resight.erase(crop_ids=[one]).crops == 0
    assert [*resight.crops()] == []


@pytest.mark.parametrize("name", ["..", ".", "../model?x", "a/b"])
def test_a_name_cannot_leave_its_path(name: str) -> None:
    request = httpx.Client(base_url="http://resight.test").build_request(**identity_call(name).arguments())
    assert request.url.raw_path.count(b"/") == 2
    assert request.url.path == f"/identities/{name}"


def test_what_may_not_be_repeated_is_sent_once() -> None:
    sent: list[tuple[str, object]] = []

    def broken(request: httpx.Request) -> httpx.Response:
        sent.append((request.method, json.loads(request.read() or b"null")))
        raise httpx.ReadError("broken", request=request)

    client = Resight("http://resight.test", transport=httpx.MockTransport(broken))
    for ask in (
        lambda: client.rename("a", "b"),
        lambda: client.erase(identity="a"),
        lambda: client.delete_identity("a"),
    ):
        with pytest.raises(ResightError):
            ask()
    assert sent == [("PATCH", {"identity": "b"}), ("POST", {"identity": "a"}), ("DELETE", None)]
