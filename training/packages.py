"""How a command starts and is stopped, and packages that may not be installed. Imports none of them itself."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

INSTALL = "pip install -c constraints.txt -e '.[cpu,train]' (or gpu for cpu; docs/training.md)"
INTERRUPTED = 130  # what a shell expects of a program that Ctrl-C ended


@contextmanager
def needed(module: str) -> Iterator[None]:
    """What is imported within, by the module of that `__name__`: where that is the command itself, a package that is
    missing, or Ctrl-C during the seconds that this takes, ends it with a sentence."""
    try:
        yield
    except ImportError as error:
        if module != "__main__" or (error.name or "").partition(".")[0] == "training":
            raise
        print(f"error: {missing(error)}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        if module != "__main__":
            raise
        print("stopped", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None


def stop_on_sigterm() -> None:
    """From here on SIGTERM ends the command as Ctrl-C does: its temporary files go, and the processes it started."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def missing(error: ImportError) -> str:
    """What is missing, and how it is installed."""
    return f"a package is not installed ({error}): {INSTALL}"
