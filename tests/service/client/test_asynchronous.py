"""The client for asyncio does what the blocking one does."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.client import AsyncResight, NewCrop, NotResight, Resight, ResightError, Unreachable
from tests.drawn_crops import crop
from tests.service.api.archives import archive
from tests.serving import Served


def run(served: Served, use: Callable[[AsyncResight], Awaitable[None]]) -> None:
    async def opened() -> None:
        async with AsyncResight(served.url) as client:
            await use(client)

    asyncio.run(opened())


def public(owner: type) -> dict[str, list[str]]:
    return {
        name: [parameter for parameter in inspect.signature(value).parameters if parameter != "self"]
        for name, value in inspect.getmembers(owner, callable)
        if not name.startswith("_")
    }


def test_both_clients_have_the_same_methods_with_the_same_parameters() -> None:
    blocking, asynchronous = public(Resight), public(AsyncResight)
    for name in ("close", "read"):
        del blocking[name]
    del asynchronous["aclose"]
    assert asynchronous == blocking
    made, awaited = inspect.signature(Resight).parameters, inspect.signature(AsyncResight).parameters
    assert list(made) == list(awaited)
    assert [one.default for one in made.values()] == [one.default for one in awaited.values()]


def test_enrolled_asked_corrected_erased(service: Served) -> None:
    async def use(client: AsyncResight) -> None:
        assert (await client.ready()).ready
        first, second = await asyncio.gather(
            client.enrol(crop(1), identity="1", camera="c1"), client.enrol([crop(9)], identity="9")
        )
        ranking = await client.query(crop(1, view=1), top_k=1, consistency="strong")
        assert ranking.matches[0].identity == "1"
        crop_id = first.results[0].crop_id
        other = second.results[0].crop_id
        assert crop_id is not None
        assert other is not None
        assert (await client.correct(crop_id, track="t")).track == "t"
        assert (await client.image(crop_id)).startswith(b"\xff\xd8")
        assert (await client.attention(crop_id)).startswith(b"\x89PNG")
        assert (await client.embed([crop(1)])).shape[0] == 1
        assert (await client.rename("1", "one")).moved == 1
        assert (await client.identity("one")).crops == 1
        assert [one.identity async for one in client.identities(page_size=1)] == ["9", "one"]
        assert {one.crop_id async for one in client.crops(page_size=1)} == {crop_id, other}  # in either order
        assert (await client.crop(crop_id)).camera == "c1"
        assert (await client.erase(identity="one")).crops == 1
        await client.delete_identity("9")
        assert [one async for one in client.crops()] == []
        with pytest.raises(ResightError) as caught:
            await client.delete(crop_id)
        assert caught.value.problem.type == "/problems/unknown-crop"
        assert (await client.model()).name == service.runtime.info.name

    run(service, use)


def test_generators_and_archives_are_streamed(service: Served, tmp_path: Path) -> None:
    path = tmp_path / "crops.tar"
    path.write_bytes(archive({"0001_c1s1_000001_01.png": crop(1), "0002_c1s1_000001_01.png": crop(2)}))

    async def crops() -> AsyncIterator[NewCrop]:
        for number in range(5):
            yield NewCrop(crop(number), identity=str(number))

    async def use(client: AsyncResight) -> None:
        found = [one async for one in client.enrol_stream(crops(), at_once=2)]
        assert [(one.index, one.name, one.status) for one in found] == [
            (number, f"image-{number}", "created") for number in range(5)
        ]
        assert [one.status async for one in client.enrol_stream([NewCrop(crop(1))])] == ["duplicate"]
        again = [one async for one in client.enrol_tar(path, at_once=1)]
        assert [(one.index, one.status) for one in again] == [(0, "updated"), (1, "updated")]

    run(service, use)


def test_it_waits_for_a_busy_service_and_recognises_another(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("service.client.asynchronous.asyncio.sleep", sleep)
    busy = httpx.Response(429, headers={"Retry-After": "3"})
    coming: Any = iter([httpx.ConnectError("refused"), busy, httpx.Response(200, html="<h1>Welcome</h1>")])

    def outcome(request: httpx.Request) -> httpx.Response:
        one = next(coming, httpx.ConnectError("refused"))
        if isinstance(one, Exception):
            raise one
        assert isinstance(one, httpx.Response)
        return one

    async def use() -> None:
        async with AsyncResight("http://resight.test", transport=httpx.MockTransport(outcome), retries=2) as client:
            with pytest.raises(NotResight):
                await client.query(b"image")
            with pytest.raises(Unreachable):
                await client.ready()

    asyncio.run(use())
    assert pauses == [0.25, 3.0]
