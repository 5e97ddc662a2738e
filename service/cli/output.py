"""A stdout that may be a full disk, or a pipe that nobody reads any more."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class OutputError(Exception):
    """Nothing can be written to stdout; the message says why."""


@contextmanager
def writing() -> Iterator[None]:
    """For a block that only prints: what it printed has arrived at the end. Raises OutputError, for good."""
    if sys.stdout is None:
        raise OutputError("it is closed")
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        _discard()
        raise OutputError(error.strerror or str(error)) from error


def _discard() -> None:
    """Sends the rest nowhere: what is still buffered would fail again when Python ends, with a traceback."""
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, sys.stdout.fileno())
        finally:
            os.close(nowhere)
