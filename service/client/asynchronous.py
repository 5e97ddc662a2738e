"""The client for asyncio: `AsyncResight` has the methods of `Resight`, and each is awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Iterator
from functools import partial, wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import httpx

from service.client.addresses import DEFAULT_URL
from service.client.answers import Crop, Readiness
from service.client.archives import MOST_MEMBERS, Archive, NewCrop, Piece, pieces_of_crops, pieces_of_tar
from service.client.bulk import members_of
from service.client.calls import (
    Consistency,
    Many,
    Moment,
    archive_call,
    attention_call,
    crop_call,
    delete_call,
    embed_call,
    enrol_call,
    image_call,
    model_call,
    page_call,
    query_call,
    ready_call,
)
from service.client.decisions import (
    Identity,
    correct_call,
    delete_identity_call,
    erase_call,
    identities_call,
    identity_call,
    rename_call,
)
from service.client.failures import ResightError
from service.client.members import Member
from service.client.sending import Answer, Call, Retrying, accept, read_answer, unready
from service.client.wiring import wiring

P = ParamSpec("P")
Item = TypeVar("Item")


def _awaited(build: Callable[P, Call[Answer]]) -> Callable[Concatenate[AsyncResight, P], Coroutine[Any, Any, Answer]]:
    """The method that sends what `build` builds."""

    @wraps(build)
    async def method(self: AsyncResight, /, *args: P.args, **kwargs: P.kwargs) -> Answer:
        return await self.send(build(*args, **kwargs))

    return method


class AsyncResight:
    """A connection to one Resight service for asyncio; close it with `aclose`, or use it in an `async with`.

    Arguments, methods, images and errors are those of `Resight`, where each method is described; `crops`,
    `identities`, `enrol_stream` and `enrol_tar` are iterated with `async for`.
    """

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        *,
        key: str | None = None,
        timeout: float = 120.0,
        deadline: float = 120.0,
        retries: int = 4,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        wires = wiring(base_url, key, timeout)
        self.base_url = wires.base_url
        self._retrying = Retrying(retries, deadline)
        self._http = httpx.AsyncClient(transport=transport, **wires.arguments)

    enrol = _awaited(enrol_call)
    query = _awaited(query_call)
    embed = _awaited(embed_call)
    crop = _awaited(crop_call)
    image = _awaited(image_call)
    attention = _awaited(attention_call)
    delete = _awaited(delete_call)
    identity = _awaited(identity_call)
    rename = _awaited(rename_call)
    delete_identity = _awaited(delete_identity_call)
    erase = _awaited(erase_call)
    model = _awaited(model_call)

    async def correct(self, crop_id: str, **changes: object) -> Crop:
        """See `Resight.correct`."""
        return await self.send(correct_call(crop_id, changes))

    async def ready(self) -> Readiness:
        """See `Resight.ready`."""
        try:
            return await self.send(ready_call())
        except ResightError as error:
            raise unready(error) from error

    async def crops(
        self,
        *,
        cameras: Many = (),
        exclude_cameras: Many = (),
        since: Moment | None = None,
        until: Moment | None = None,
        identity: str | None = None,
        unidentified: bool = False,
        page_size: int = 1000,
        consistency: Consistency | None = None,
    ) -> AsyncIterator[Crop]:
        """See `Resight.crops`."""
        build = partial(
            page_call,
            cameras=cameras,
            exclude_cameras=exclude_cameras,
            since=since,
            until=until,
            identity=identity,
            unidentified=unidentified,
            limit=page_size,
            consistency=consistency,
        )
        page = await self.send(build())
        while True:
            for crop in page.crops:
                yield crop
            if page.next_cursor is None:
                return
            page = await self.send(build(cursor=page.next_cursor))

    async def identities(
        self, *, page_size: int = 1000, consistency: Consistency | None = None
    ) -> AsyncIterator[Identity]:
        """See `Resight.identities`."""
        page = await self.send(identities_call(page_size, None, consistency))
        while True:
            for identity in page.identities:
                yield identity
            if page.next_cursor is None:
                return
            page = await self.send(identities_call(page_size, page.next_cursor, consistency))

    async def enrol_stream(
        self, crops: Iterable[NewCrop] | AsyncIterable[NewCrop], *, at_once: int = MOST_MEMBERS
    ) -> AsyncIterator[Member]:
        """See `Resight.enrol_stream`; `crops` may be an async generator, too."""
        start = 0
        async for group in _grouped(crops, at_once):
            async for member in self._enrol_pieces(pieces_of_crops(group, at_once, start), start):
                yield member
            start += len(group)

    async def enrol_tar(self, archive: Archive, *, at_once: int = MOST_MEMBERS) -> AsyncIterator[Member]:
        """See `Resight.enrol_tar`; the archive is read in a thread."""
        async for member in self._enrol_pieces(pieces_of_tar(archive, at_once), 0):
            yield member

    async def _enrol_pieces(self, pieces: Iterator[Piece], start: int) -> AsyncIterator[Member]:
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            archived = await self.send(archive_call(piece.content))
            for member in members_of(archived, piece, start):
                yield member
            if archived.problem is not None:
                raise ResightError(archived.problem)
            start += len(piece.names)

    async def send(self, call: Call[Answer]) -> Answer:
        """Send a call and read its answer."""
        return read_answer(call, await self.fetch(call), self.base_url)

    async def fetch(self, call: Call[Any]) -> httpx.Response:
        """Send a call, again where `Retrying` says so; its response, unread."""
        attempts = self._retrying.begin(call)
        while True:
            outcome: httpx.Response | httpx.TransportError
            try:
                outcome = await self._http.request(**call.arguments())
            except httpx.TransportError as error:
                outcome = error
            pause = attempts.pause(outcome)
            if pause is None:
                return accept(call, outcome, self.base_url)
            await asyncio.sleep(pause)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


async def _grouped(items: Iterable[Item] | AsyncIterable[Item], size: int) -> AsyncIterator[list[Item]]:
    """The items in lists of `size`; the last may be shorter."""
    group: list[Item] = []
    async for item in _each(items):
        group.append(item)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


async def _each(items: Iterable[Item] | AsyncIterable[Item]) -> AsyncIterator[Item]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
