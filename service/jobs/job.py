"""What every job shares: how it says how far it is, and why it cannot be done."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]  # how much is done, and how much that is in all


class JobError(Exception):
    """The job cannot be done; the message is a sentence that says what to do. What was there before is unchanged."""


def unheard(_done: int, _total: int) -> None:
    """The progress that nobody asked for."""
