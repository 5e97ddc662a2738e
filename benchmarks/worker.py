"""Contenders in processes of their own: one line of JSON asks, one answers.

So each has its own memory, threads and, where it needs one, Python environment, and none slows another while it waits.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks import BenchmarkError

ROOT = Path(__file__).parent.parent
END_SECONDS = 20.0


class Worker:
    """A process that runs `python -m module arguments…` and is asked through `ask`."""

    def __init__(self, module: str, *arguments: str, python: str, env: Mapping[str, str] | None = None) -> None:
        self._name = " ".join((module, *arguments))
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (`close` closes it)
        self._process = subprocess.Popen(
            [python, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=ROOT,
            env=os.environ | dict(env or {}),
        )

    def ask(self, **message: Any) -> Any:
        """What the contender answers; raises BenchmarkError with its reason when it cannot."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise BenchmarkError(self._end()) from None
        line = self._process.stdout.readline()
        if not line:
            raise BenchmarkError(self._end())
        reply = json.loads(line)
        if "error" in reply:
            raise BenchmarkError(f"{self._name}: {reply['error']}")
        return reply["answer"]

    def _end(self) -> str:
        code = self._process.wait(END_SECONDS)
        self._errors.seek(0)
        last = [line.strip() for line in self._errors.read().splitlines() if line.strip()]
        return f"{self._name} ended with {code}: {last[-1] if last else 'it said nothing'}"

    def close(self) -> None:
        """Ends the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):  # it ended before it was asked to
                    pipe.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()


@contextmanager
def working(module: str, *arguments: str, python: str = "", env: Mapping[str, str] | None = None) -> Iterator[Worker]:
    """A worker for the time of a block; `python` is this one where none is given."""
    worker = Worker(module, *arguments, python=python or sys.executable, env=env)
    try:
        yield worker
    finally:
        worker.close()


def serve(answer: Callable[..., Any]) -> None:
    """The other side: calls `answer` with each message until there is none. What libraries print goes to stderr."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            reply = {"answer": answer(**json.loads(line))}
        except Exception as error:  # whatever a contender raises is the asker's to hear
            reply = {"error": " ".join(f"{type(error).__name__}: {error}".split())[:300]}
        print(json.dumps(reply), file=replies, flush=True)


def resident_bytes(pid: int | str = "self") -> int:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))
