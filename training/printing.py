"""The standard output of a command: out, or a sentence."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def printing() -> Iterator[None]:
    """What is printed within has left the process at the end.

    Raises:
        ValueError: the standard output takes no more of it: the disk is full, or its reader is gone.
    """
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        # Else Python tries again when it ends, and says what it thinks of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise ValueError(f"what was found could not be printed ({error.strerror or error})") from error
