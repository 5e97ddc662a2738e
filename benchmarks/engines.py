"""One engine in a process of its own: `python -m benchmarks.engines NAME MODEL THREADS DEVICE`, asked by a Worker.

Crops are decoded already and nothing else is in the process; `onnxruntime` with its defaults is the yardstick of all
that is measured behind HTTP. Each answers with the seconds that every run of a batch took.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.worker import Worker, serve, working

WARM_UP = 2  # runs of a batch size when it is met first; one whenever its turn comes again

Crops = NDArray[np.uint8]
Run = Callable[[Crops], object]


def resight(model: Path, threads: int, device: str) -> Run:
    """Our engine, as the service loads it."""
    from service.inference.loading import load_engine
    from service.inference.model import read_model

    return load_engine(read_model(model), device, threads).run


def onnxruntime(model: Path, threads: int, device: str) -> Run:
    """ONNX Runtime with `threads` threads and its own defaults otherwise."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[device]
    if device != "cpu":
        onnxruntime.preload_dlls()
    session = onnxruntime.InferenceSession(model, options, providers=[provider])
    if session.get_providers()[0] != provider:
        raise RuntimeError(f"{provider} does not run here")
    name = session.get_inputs()[0].name
    return lambda crops: session.run(["embedding"], {name: crops})


def openvino(model: Path, threads: int, device: str, precision: str = "f32") -> Run:
    """OpenVINO on the same file, by its documented hint for one request after the other."""
    import openvino

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": precision,
    }
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
    return lambda crops: request.infer([crops], share_inputs=True)


def pytorch(model: Path, threads: int, device: str, compiled: bool = False) -> Run:
    """The same architecture with random weights, channels last: float32 on a CPU, float16 on a GPU."""
    import torch

    from benchmarks.fresh import fresh_network

    torch.set_num_threads(threads)
    network: Any = fresh_network(model).to(device)
    forward = network = network.to(memory_format=torch.channels_last)
    if compiled:
        import torch._inductor.config

        torch._inductor.config.freezing = True
        forward = torch.compile(network)

    def run(crops: Crops) -> object:
        with torch.inference_mode(), torch.autocast(device, torch.float16, enabled=device != "cpu"):
            return forward(torch.from_numpy(crops).to(device))[0].cpu()

    return run


ENGINES: dict[str, Callable[[Path, int, str], Run]] = {
    "resight": resight,
    "onnxruntime": onnxruntime,
    "openvino": openvino,
    "openvino-bf16": partial(openvino, precision="bf16"),
    "pytorch": pytorch,
    "pytorch-compiled": partial(pytorch, compiled=True),
}


class Timed:
    """Answers a worker's questions about one engine."""

    def __init__(self, run: Run, height: int, width: int) -> None:
        self._run = run
        self._size = height, width, 3
        self._batches: set[int] = set()

    def __call__(self, batch: int, seconds: float) -> list[float]:
        """Seconds that each run of so many crops took, for about `seconds`, once at least."""
        crops = np.random.default_rng(batch).integers(0, 256, (batch, *self._size), np.uint8)
        for _ in range(1 if batch in self._batches else WARM_UP):
            self._run(crops)
        self._batches.add(batch)
        taken, begun = list[float](), time.perf_counter()
        while not taken or time.perf_counter() - begun < seconds:
            started = time.perf_counter()
            self._run(crops)
            taken.append(time.perf_counter() - started)
        return taken


@contextmanager
def raw_engine(model: Path, threads: int, device: str = "cpu") -> Iterator[Worker]:
    """ONNX Runtime alone: a worker to be asked for `batch` and `seconds`."""
    with working("benchmarks.engines", "onnxruntime", str(model), str(threads), device) as worker:
        yield worker


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=ENGINES)
    parser.add_argument("model", type=Path)
    parser.add_argument("threads", type=int)
    parser.add_argument("device")
    options = parser.parse_args()
    serve(_Late(options))


class _Late:
    """Loads the engine when it is asked first, so that a reason not to load is an answer like any other."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._timed: Timed | None = None

    def __call__(self, batch: int, seconds: float) -> list[float]:
        if self._timed is None:
            from service.inference.model import read_model

            options = self._options
            info = read_model(options.model).info
            run = ENGINES[options.name](options.model, options.threads, options.device)
            self._timed = Timed(run, info.height, info.width)
        return self._timed(batch, seconds)


if __name__ == "__main__":
    main()
