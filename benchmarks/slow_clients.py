"""What slow and dead clients cost the others: `python -m benchmarks.slow_clients` beside `resight serve`.

Rounds without and with `--sockets` clients that connect and say nothing, stop in the middle of a head, or send a body
byte by byte, each in again as soon as it is ended. Held is: the others' rate falls by no more than 10 %.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

from benchmarks.load import LoadError, form_head, good_rate, in_turn, percentile, pictures, process_of, request_of
from benchmarks.options import as_amount, as_count
from service.client import DEFAULT_URL

CLIENTS = 8
LOSS = 0.10


async def slow_client(url: str, kind: int) -> None:
    """Takes up a connection, and another whenever that one is ended, until it is cancelled."""
    place = urlsplit(url)
    beginning = [b"", b"POST /embed HTTP/1.1\r\nHost: loc", form_head("/embed", 100_000)][kind % 3]
    while True:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection(place.hostname, place.port)
            try:
                writer.write(beginning)
                while not reader.at_eof():
                    with suppress(TimeoutError):
                        await asyncio.wait_for(reader.read(1000), 1)
                    if kind % 3 == 2:
                        writer.write(b"-")
            finally:
                writer.close()
        await asyncio.sleep(0.1)


@asynccontextmanager
async def slow_clients(url: str, sockets: int) -> AsyncIterator[None]:
    """So many of them while the block runs."""
    tasks = [asyncio.create_task(slow_client(url, kind)) for kind in range(sockets)]
    try:
        await asyncio.sleep(0.5)  # until all are connected
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def measure(url: str, sockets: int, rounds: int, seconds: float) -> tuple[list[float], list[float]]:
    """Rates of the other clients without and with the slow ones, in turn; prints each; raises LoadError."""
    requests = [request_of("/embed", picture) for picture in pictures(64)]
    process_of(url)
    await in_turn(url, requests, CLIENTS, seconds)
    rates: tuple[list[float], list[float]] = ([], [])
    for number in range(2 * rounds):
        slow = sockets * (number % 2)
        async with slow_clients(url, slow):
            replies = await in_turn(url, requests, CLIENTS, seconds)
        rates[number % 2].append(good_rate(replies))
        tail = percentile(replies, 99)
        print(f"{slow:4} slow clients: {rates[number % 2][-1]:.1f} answers a second, p99 {tail:.1f} ms")
    return rates


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 held, 1 not held, 2 not possible."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default=DEFAULT_URL)
    parser.add_argument("--sockets", type=as_count, default=300)
    parser.add_argument("--rounds", type=as_count, default=4)
    parser.add_argument("--seconds", type=as_amount, default=10.0, help="of each round")
    options = parser.parse_args(argv)
    try:
        without, beside = asyncio.run(measure(options.url, options.sockets, options.rounds, options.seconds))
    except LoadError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not sum(without):
        print(f"error: {options.url} answers no picture with 200.", file=sys.stderr)
        return 2
    loss = 1 - sum(beside) / sum(without)
    print(f"{'held' if loss <= LOSS else 'NOT HELD'}: {loss:+.1%} of the rate lost, {LOSS:.0%} may be")
    return 0 if loss <= LOSS else 1


if __name__ == "__main__":
    sys.exit(main())
