"""What the benchmarks that hold a running service to promises share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from benchmarks.load import LoadError
from service.client import DEFAULT_URL

Seen = TypeVar("Seen")


def arguments(description: str | None, seconds: float) -> argparse.ArgumentParser:
    """Where the service is, and for how long it is loaded."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default=DEFAULT_URL)
    parser.add_argument("--seconds", type=float, default=seconds)
    return parser


def broken(kept: Mapping[str, bool]) -> list[str]:
    """The promises that were not kept, from what each would be broken by and whether it holds."""
    return [promise for promise, holds in kept.items() if not holds]


def judged(measure: Callable[[], Seen], show: Callable[[Seen], Sequence[str]]) -> int:
    """Measures, shows, and says what was not held. Exit codes: 0 all held, 1 not all held, 2 not possible."""
    try:
        seen = measure()
    except LoadError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    missed = show(seen)
    for promise in missed:
        print(f"NOT HELD  {promise}")
    return 1 if missed else 0
