"""What the benchmarks that hold a running service to promises share."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from benchmarks.load import LoadError, good_rate, in_turn
from benchmarks.options import as_amount
from service.client import DEFAULT_URL

Seen = TypeVar("Seen")


async def full_rate(url: str, requests: Sequence[bytes], clients: int, seconds: float) -> float:
    """Answers with 200 a second when so many clients ask in turn; raises LoadError where there are none."""
    rate = good_rate(await in_turn(url, requests, clients, seconds))
    if not rate:
        raise LoadError(f"{url} answers no picture with 200.")
    return rate


def broken(kept: Mapping[str, bool]) -> list[str]:
    """The promises that were not kept, from what each would be broken by and whether it holds."""
    return [promise for promise, holds in kept.items() if not holds]


def command(
    argv: Sequence[str] | None,
    description: str | None,
    load: tuple[str, float],
    seconds: float,
    measure: Callable[[str, float, float], Coroutine[Any, Any, Seen]],
    show: Callable[[Seen, float], Sequence[str]],
) -> int:
    """Measures a service, shows what was seen, and says what was not held.

    `measure` gets its address, the load, an option of that name and default, and for how long. Exit codes: 0 all held,
    1 not all held, 2 not possible.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default=DEFAULT_URL)
    parser.add_argument("--seconds", type=as_amount, default=seconds)
    parser.add_argument(f"--{load[0]}", type=as_amount, default=load[1], dest="load")
    options = parser.parse_args(argv)
    try:
        seen = asyncio.run(measure(options.url, options.load, options.seconds))
    except LoadError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    missed = show(seen, options.seconds)
    for promise in missed:
        print(f"NOT HELD  {promise}")
    return 1 if missed else 0
