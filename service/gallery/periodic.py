"""Work that a gallery does now and then, on a thread of its own that outlives its failures."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

_log = logging.getLogger(__name__)


class Periodic:
    """Calls `work` every `seconds`, the first time after as long, until it is closed. What it raises is logged."""

    def __init__(self, name: str, seconds: float, work: Callable[[], object]) -> None:
        self._work = work
        self._seconds = seconds
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Waits for work under way and ends the thread. Idempotent."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.wait(self._seconds):
            try:
                self._work()
            except Exception:
                _log.exception("%s failed; it is tried again in %g s", self._thread.name, self._seconds)
