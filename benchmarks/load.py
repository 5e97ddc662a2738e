"""Load for a running service, for the benchmarks of this folder: requests over plain sockets, and what came back.

A client library would take the processor that the service needs; here a request is bytes that are made once.
"""

from __future__ import annotations

import asyncio
import io
import resource
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx
import numpy as np
from PIL import Image

from benchmarks import BenchmarkError

BOUNDARY = "resight-load"
ANSWER_SECONDS = 60.0


class LoadError(BenchmarkError):
    """The service cannot be asked; the message says why."""


@dataclass(frozen=True)
class Reply:
    """One request: when it was sent, in seconds since the load began, its status (0: no answer), how long it took."""

    sent: float
    status: int
    seconds: float


@dataclass(frozen=True)
class Offered:
    """What came back of a load: answers a second, ms at the median and the 99th percentile, and the share of one core
    that the load took itself."""

    rate: float
    median: float
    late: float
    own_share: float


@dataclass(frozen=True)
class Process:
    """The service's process: resident memory in bytes, open files."""

    memory: float
    files: int


def pictures(count: int, size: tuple[int, int] = (64, 128)) -> list[bytes]:
    """JPEG crops of noise, each of its own; `size` is width and height in pixels."""
    drawn = []
    for seed in range(count):
        noise = np.random.default_rng(seed).integers(0, 256, (16, 8, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(file, "JPEG")
        drawn.append(file.getvalue())
    return drawn


def form_head(path: str, length: int, accept: str = "*/*") -> bytes:
    """The head of a POST of a form of `length` bytes to this machine."""
    lines = (
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        f"Accept: {accept}",
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}",
        f"Content-Length: {length}",
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def request_of(path: str, *images: bytes, accept: str = "*/*", fields: Mapping[str, str] | None = None) -> bytes:
    """A whole POST of these pictures and fields."""
    part = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
    picture = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="a.jpg"\r\n\r\n'.encode()
    texts = "".join(part % field for field in (fields or {}).items()).encode()
    body = texts + b"".join(picture + image + b"\r\n" for image in images) + f"--{BOUNDARY}--\r\n".encode()
    return form_head(path, len(body), accept) + body


def process_of(url: str) -> Process:
    """What `GET /metrics` says of the process; raises LoadError."""
    try:
        answer = httpx.get(f"{url}/metrics", timeout=ANSWER_SECONDS).raise_for_status()
    except httpx.HTTPError as error:
        raise LoadError(f"{url}/metrics does not answer ({error}); start the service without keys.") from error
    values = dict(line.rsplit(" ", 1) for line in answer.text.splitlines() if not line.startswith("#"))
    return Process(float(values["process_resident_memory_bytes"]), int(float(values["process_open_fds"])))


class _Ended(ConnectionError):
    """A connection was ended before an answer began."""


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        raise _Ended from error
    except ConnectionError as error:
        raise _Ended from error


class Connections:
    """Keeps connections to one service open between requests."""

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self._host, self._port = place.hostname or "localhost", place.port or 80
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, request: bytes, begun: float) -> Reply:
        """Sends the request and reads the answer; `begun` is when the load began."""
        sent = time.perf_counter()
        status = 0
        with suppress(OSError, asyncio.IncompleteReadError, TimeoutError, ValueError):
            async with asyncio.timeout(ANSWER_SECONDS):
                status = await self._answer(request)
        return Reply(sent - begun, status, time.perf_counter() - sent)

    async def _answer(self, request: bytes) -> int:
        """Uses a connection that is open; one that the service ended while it was idle is no failure of a request."""
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof():
                with suppress(_Ended):
                    return await self._exchange(reader, writer, request)
            writer.close()
        return await self._exchange(*await asyncio.open_connection(self._host, self._port), request)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> int:
        """The answer's status; raises _Ended when the connection ends before the first byte of it."""
        try:
            writer.write(request)
            head = (await _head(reader)).decode("latin-1").lower()
            length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
            await reader.readexactly(length)
        except BaseException:
            writer.close()
            raise
        if "\r\nconnection: close\r\n" in head:
            writer.close()
        else:
            self._idle.append((reader, writer))
        return int(head.split()[1])

    def close(self) -> None:
        """Ends the connections that are not in use."""
        for _, writer in self._idle:
            writer.close()


async def in_turn(url: str, requests: Sequence[bytes], clients: int, seconds: float) -> list[Reply]:
    """So many clients, each sending its next request when it has the answer to the last."""
    connections, begun = Connections(url), time.perf_counter()

    async def client(number: int) -> list[Reply]:
        replies: list[Reply] = []
        while time.perf_counter() - begun < seconds:
            replies.append(await connections.ask(requests[(number + len(replies)) % len(requests)], begun))
        return replies

    try:
        return [reply for part in await asyncio.gather(*map(client, range(clients))) for reply in part]
    finally:
        connections.close()


async def once(url: str, requests: Iterable[bytes], clients: int) -> list[Reply]:
    """Every request once, by so many clients that take the next when they have the answer to the last."""
    connections, begun, left = Connections(url), time.perf_counter(), iter(requests)

    async def client() -> list[Reply]:
        return [await connections.ask(request, begun) for request in left]

    try:
        return [reply for part in await asyncio.gather(*(client() for _ in range(clients))) for reply in part]
    finally:
        connections.close()


async def at_rate(url: str, requests: Sequence[bytes], rate: float, seconds: float) -> list[Reply]:
    """So many requests a second, evenly, whether or not the earlier ones were answered."""
    connections, begun = Connections(url), time.perf_counter()
    waiting: set[asyncio.Task[Reply]] = set()
    replies: list[Reply] = []

    def settled(task: asyncio.Task[Reply]) -> None:
        waiting.discard(task)
        replies.append(task.result())

    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(begun + number / rate - time.perf_counter(), 0))
        task = asyncio.create_task(connections.ask(requests[number % len(requests)], begun))
        waiting.add(task)
        task.add_done_callback(settled)
    while waiting:
        await asyncio.wait(waiting)
        await asyncio.sleep(0)  # for the callbacks
    connections.close()
    return replies


def good_rate(replies: Sequence[Reply]) -> float:
    """Requests answered with 200 a second, from the begin of the load to the last reply; 0 for none."""
    lasted = max((reply.sent + reply.seconds for reply in replies), default=1.0)
    return sum(reply.status == 200 for reply in replies) / lasted


def percentile(replies: Sequence[Reply], share: float) -> float:
    """The time in ms within which that percentage of the replies came; NaN for none."""
    times = [reply.seconds * 1e3 for reply in replies]
    return float(np.percentile(times, share)) if times else float("nan")


def offer(url: str, requests: Sequence[bytes], clients: int, seconds: float) -> Offered:
    """Loads the service by clients in turn; raises LoadError unless every answer is 200."""
    before = _own_seconds()
    replies = asyncio.run(in_turn(url, requests, clients, seconds))
    lasted = max(reply.sent + reply.seconds for reply in replies)
    share = (_own_seconds() - before) / lasted
    statuses = sorted({reply.status for reply in replies} - {200})
    if statuses:
        raise LoadError(f"{url}: {clients} clients were answered with {statuses}, too, not only with 200")
    return Offered(len(replies) / lasted, percentile(replies, 50), percentile(replies, 99), share)


def _own_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
