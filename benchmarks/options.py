"""Numbers given as options: argparse types that refuse at once what nothing can be measured with."""

from __future__ import annotations

import math
from argparse import ArgumentTypeError


def as_count(text: str) -> int:
    """A whole number from 1 on."""
    try:
        number = int(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is no whole number") from None
    if number < 1:
        raise ArgumentTypeError("must be at least 1")
    return number


def as_counts(text: str) -> list[int]:
    """Several of them: `1,8,32`."""
    return [as_count(part) for part in text.split(",")]


def as_amount(text: str) -> float:
    """A number above 0."""
    try:
        number = float(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is no number") from None
    if not 0 < number < math.inf:
        raise ArgumentTypeError("must be above 0")
    return number
