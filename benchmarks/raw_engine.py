"""The yardstick: ONNX Runtime alone on the same file, crops already decoded, nothing else in its process."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import onnxruntime

WARM_UP = 2  # runs of each batch size


@dataclass(frozen=True)
class RawEngine:
    """A process that holds the model and waits to be asked."""

    _connection: Connection

    def run(self, batch: int, seconds: float) -> list[float]:
        """Seconds that each run of so many crops took, for about `seconds`."""
        self._connection.send((batch, seconds))
        taken: list[float] = self._connection.recv()
        return taken

    def images_per_second(self, batch: int, seconds: float) -> float:
        """By the median run."""
        return batch / statistics.median(self.run(batch, seconds))


@contextmanager
def raw_engine(model: Path, threads: int) -> Iterator[RawEngine]:
    """ONNX Runtime with `threads` threads and its own defaults otherwise."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, model, threads), daemon=True)
    process.start()
    theirs.close()
    try:
        yield RawEngine(ours)
    finally:
        ours.close()  # which ends the process
        process.join()


def _serve(connection: Connection, model: Path, threads: int) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (crops,) = session.get_inputs()
    random = np.random.default_rng(0)
    while True:
        try:
            batch, seconds = connection.recv()
        except EOFError:
            return
        feed = {crops.name: random.integers(0, 256, (batch, *crops.shape[1:]), np.uint8)}
        for _ in range(WARM_UP):
            session.run(["embedding"], feed)
        taken, begun = [], time.perf_counter()
        while time.perf_counter() - begun < seconds:
            started = time.perf_counter()
            session.run(["embedding"], feed)
            taken.append(time.perf_counter() - started)
        connection.send(taken)
