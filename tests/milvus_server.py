"""A real Milvus server for tests, from the wheel in an environment of its own: `make milvus` makes it.

MILVUS_VENV names another environment than .venv-milvus.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

VENV = Path(os.environ.get("MILVUS_VENV", Path(__file__).parents[1] / ".venv-milvus"))
COMMAND = VENV / "bin" / "milvus-server"
ABSENT = (
    None if COMMAND.exists() else f"there is no {COMMAND}: `make milvus` installs it, MILVUS_VENV names another place"
)
NEEDS_MILVUS = [pytest.mark.milvus, pytest.mark.skipif(ABSENT is not None, reason=str(ABSENT))]
START_SECONDS = 240
TICK_MS = 20  # how long a strong read waits; 200 ms by default


class MilvusServer:
    """One standalone server, that can be killed and started again on its data."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port = _free_port()

    def start(self) -> None:
        """Returns when it answers. Raises RuntimeError when it does not."""
        deadline = time.monotonic() + START_SECONDS
        while not _is_free(self.port):  # of the one before, which has just ended
            assert time.monotonic() < deadline, "the port stays taken"
            time.sleep(0.2)
        self._folder.mkdir(parents=True, exist_ok=True)
        log = self._folder / "server.log"
        tick = f"proxy.timeTickInterval={TICK_MS}"
        arguments = ["--data", str(self._folder / "data"), "--proxy-port", str(self.port), "--extra-config", tick]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [str(COMMAND), *arguments], stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        while not re.search(rb"Process:", log.read_bytes()):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"Milvus did not start: {log.read_text()[-2000:]}")
            time.sleep(0.1)

    def kill(self) -> None:
        """Ends it at once, with SIGKILL."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@contextmanager
def milvus_server(folder: Path) -> Iterator[MilvusServer]:
    """A server that runs until the block ends."""
    server = MilvusServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
