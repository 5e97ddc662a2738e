"""How much memory each hostile or odd file takes of a running service, at its peak.

    python -m benchmarks.hostile_memory            # a table; fails where a file takes 64 MB or more

The service runs in a process of its own, with the tests' tiny model, so that what grows is what pictures take.
Linux only: the peak is the kernel's (VmHWM), which is set back before each file.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.drawn_crops import crop, uploads
from tests.service.api.hostile_files import LARGEST, ODD, REFUSED
from tests.tiny_model import write_tiny_model

LIMIT = 64 * 10**6


@contextmanager
def served() -> Iterator[tuple[httpx.Client, int]]:
    """A service in a process of its own: a client of it, and its process id."""
    with tempfile.TemporaryDirectory() as folder:
        model = write_tiny_model(Path(folder) / "tiny.onnx")
        options = ["--port", "0", "--model", str(model), "--gallery", f"sqlite:///{folder}/data", "--threads", "1"]
        command = [sys.executable, "-c", "from service.cli.commands import main; main()", "serve", *options]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RESIGHT_")}
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
            try:
                with httpx.Client(base_url=address(process), timeout=60) as client:
                    yield client, process.pid
            finally:
                process.terminate()


def address(process: subprocess.Popen[bytes]) -> str:
    """Where the service says that it listens."""
    assert process.stdout is not None
    for line in process.stdout:
        found = re.search(rb"http://[\d.:]+\d", line)
        if found is not None:
            return found[0].decode()
    raise RuntimeError("the service ended before it listened")


def peak(pid: int) -> int:
    """The most resident memory since it was set back, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def set_back(pid: int) -> None:
    """Makes the present memory the peak."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def growth(client: httpx.Client, pid: int, data: bytes) -> int:
    """How far above what it was the memory rises while the file is enrolled, in bytes."""
    set_back(pid)
    before = peak(pid)
    client.post("/gallery", files=uploads(data))
    return peak(pid) - before


def measure() -> dict[str, int]:
    """Bytes for each file, after a warm-up that good pictures have done."""
    files: dict[str, Callable[[], bytes]] = {**{name: make for name, (make, _) in REFUSED.items()}, **ODD, **LARGEST}
    with served() as (client, pid):
        for number in range(20):
            client.post("/gallery", files=uploads(crop(number)))
        return {name: growth(client, pid, make()) for name, make in files.items()}


def greedy(grown: Mapping[str, int]) -> dict[str, int]:
    """Those that took more than they may."""
    return {name: size for name, size in grown.items() if size >= LIMIT}


def main() -> int:
    started = time.perf_counter()
    grown = measure()
    for name, size in sorted(grown.items(), key=lambda item: -item[1]):
        print(f"{size / 1e6:8.1f} MB  {name}")
    print(f"{len(grown)} files in {time.perf_counter() - started:.0f} s")
    return int(bool(greedy(grown)))


if __name__ == "__main__":
    sys.exit(main())
