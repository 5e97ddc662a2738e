"""A session run at fixed sizes, through buffers that stay where they are: what makes small batches cheap on a GPU."""

from __future__ import annotations

import logging
import queue
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from service.inference.card import host_buffer
from service.inference.model import ATTENTION, EMBEDDING, INPUT, ModelInfo
from service.inference.pattern import draw_pattern

logger = logging.getLogger(__name__)

Outputs = tuple[NDArray[np.float32], NDArray[np.float32] | None]
Result = TypeVar("Result")

NOT_CAPTURED = "-1"  # of the run option gpu_graph_id: kernels are launched one by one
TIMED_RUNS = 3
SAME = 1e-3  # in any number of an embedding, which has length one


class OwnThread:
    """One thread for all calls: CUDA graphs and cuDNN's handles belong to the thread that made them.

    It ends with this object, and never holds up the end of the process: a device may hang.
    """

    def __init__(self, start: Callable[[], None]) -> None:
        calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._calls = calls
        threading.Thread(target=_serve, args=(calls, start), name="resight-device", daemon=True).start()
        weakref.finalize(self, calls.put, None)

    def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """What `function` returns or raises there."""
        outcome: Future[Result] = Future()

        def run() -> None:
            try:
                outcome.set_result(function(*arguments))
            except BaseException as error:
                outcome.set_exception(error)

        self._calls.put(run)
        return outcome.result()


def _serve(calls: queue.SimpleQueue[Callable[[], None] | None], start: Callable[[], None]) -> None:
    start()
    while (call := calls.get()) is not None:
        call()
        del call  # it holds what it ran for


@dataclass(frozen=True, eq=False)
class _Buffers:
    """Of one size: input and outputs on the device, bound to the session."""

    crops: onnxruntime.OrtValue
    embeddings: onnxruntime.OrtValue
    attention: onnxruntime.OrtValue
    binding: onnxruntime.IOBinding


class BoundRuns:
    """Runs `session` in the sizes 1, 2, 4 ... `max_batch`, whatever the number of crops.

    A CUDA graph, a recording of all kernels of a run, can be played again for one size at fixed addresses;
    `warm_up` records one for each size and keeps it where it is faster. `major` is CUDA's version, None for a
    session on the CPU, which runs the same way. Not thread-safe but for the thread that all calls share.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        info: ModelInfo,
        max_batch: int,
        major: int | None,
        graphs: bool,
        start: Callable[[], None],
    ) -> None:
        self.captured: set[int] = set()  # sizes that are played from a graph
        self.seconds: dict[int, float] = {}  # of one run, by size
        self._session = session
        self._info = info
        self._max_batch = max_batch
        self._device = "cpu" if major is None else "cuda"
        self._graphs = graphs
        self._host = host_buffer((max_batch, info.height, info.width, 3), major)
        self._buffers: dict[int, _Buffers] = {}
        self._thread = OwnThread(start)

    def run(self, crops: NDArray[np.uint8], attention: bool) -> Outputs:
        """Embeddings [N, D] and, where asked for, attention [N, L, L], of crops [N, H, W, 3]."""
        if crops.shape[1:] != self._host.shape[1:]:
            raise ValueError(f"crops of shape {crops.shape} are not those of the model")
        return self._thread.call(self._run_all, crops, attention)

    def warm_up(self) -> None:
        """Runs and times every size, and records its graph; whatever ONNX Runtime raises says why it failed.

        The message of an error begins with the size at which it happened.
        """
        size = 1
        while size <= self._max_batch:
            try:
                self._thread.call(self._warm, size)
            except Exception as error:
                raise RuntimeError(f"at {size} images: {error}") from error
            size *= 2
        logger.info("sizes are warm", extra={"ms": self._milliseconds(), "cuda_graphs": sorted(self.captured)})

    def _milliseconds(self) -> dict[str, float]:
        return {str(size): round(seconds * 1e3, 2) for size, seconds in self.seconds.items()}

    def _warm(self, size: int) -> None:
        pattern = draw_pattern(self._info.height, self._info.width)
        self._host[:size] = pattern
        plain, seconds = self._timed(size)
        if self._graphs:
            self.captured.add(size)
            played, faster = self._timed(size)
            if faster >= seconds or not np.allclose(played, plain, atol=SAME):
                self.captured.discard(size)
            seconds = min(seconds, faster) if size in self.captured else seconds
        self.seconds[size] = seconds

    def _timed(self, size: int) -> tuple[NDArray[np.float32], float]:
        embeddings, _ = self._run_size(size, True)
        best = float("inf")
        for _ in range(TIMED_RUNS):
            started = time.perf_counter()
            self._run_size(size, False)
            best = min(best, time.perf_counter() - started)
        return embeddings, best

    def _run_all(self, crops: NDArray[np.uint8], attention: bool) -> Outputs:
        parts, start = [], 0
        for size in plan(len(crops), self._max_batch, self.seconds):
            count = min(size, len(crops) - start)
            self._host[:count] = crops[start : start + count]
            embeddings, maps = self._run_size(size, attention)
            parts.append((embeddings[:count], None if maps is None else maps[:count]))
            start += count
        found = np.concatenate([embeddings for embeddings, _ in parts])
        return found, np.concatenate([maps for _, maps in parts if maps is not None]) if attention else None

    def _run_size(self, size: int, attention: bool) -> Outputs:
        """What is in the first `size` places of the host's buffer, through the model."""
        buffers = self._buffers.get(size) or self._bind(size)
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(size) if size in self.captured else NOT_CAPTURED)
        buffers.crops.update_inplace(self._host[:size])
        self._session.run_with_iobinding(buffers.binding, options)
        # Copies: on the CPU, these are the buffers themselves.
        return np.array(buffers.embeddings.numpy()), np.array(buffers.attention.numpy()) if attention else None

    def _bind(self, size: int) -> _Buffers:
        info, make = self._info, onnxruntime.OrtValue.ortvalue_from_shape_and_type
        buffers = _Buffers(
            make([size, info.height, info.width, 3], np.uint8, self._device, 0),
            make([size, info.embedding_dim], np.float32, self._device, 0),
            make([size, info.positions, info.positions], np.float32, self._device, 0),
            self._session.io_binding(),
        )
        buffers.binding.bind_ortvalue_input(INPUT, buffers.crops)
        buffers.binding.bind_ortvalue_output(EMBEDDING, buffers.embeddings)
        buffers.binding.bind_ortvalue_output(ATTENTION, buffers.attention)
        self._buffers[size] = buffers
        return buffers


def plan(count: int, largest: int, seconds: dict[int, float]) -> Sequence[int]:
    """The sizes, in order, to run `count` images in: the quickest of those that end with exact or with spare places.

    13 images are 8 + 4 + 1 or, where a GPU takes hardly longer for more, 16 with three empty places.
    """
    sizes: list[int] = []
    while count:
        size = min(largest, 1 << (count.bit_length() - 1))
        above = min(largest, 2 * size)
        if count > size < above:
            exact = sum(seconds.get(1 << bit, 0.0) for bit in range(count.bit_length()) if count >> bit & 1)
            if seconds.get(above, float("inf")) <= exact:
                return [*sizes, above]
        sizes.append(size)
        count -= size
    return sizes
