"""How fast each engine embeds, a batch size at a time: `python -m benchmarks.engine`.

Our engine, ONNX Runtime alone and OpenVINO run the shipped int8 file; these, and PyTorch eager and compiled, a network
of the same architecture in fp32 (fp16 on a GPU) with random weights, which are as fast as trained ones.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks import BenchmarkError
from benchmarks.options import as_counts
from benchmarks.results import Results, arguments, command, peers_option, python_of
from benchmarks.worker import Worker, working
from service.inference.model import read_model
from service.settings import available_cores

OURS, RAW = "Resight", "ONNX Runtime"
RATE, LATENCY = "images/s", "ms a batch"
PEERS = ("openvino", "openvino-bf16")  # they live in the peers' environment
LABELS = {
    "resight": OURS,
    "onnxruntime": RAW,
    "openvino": "OpenVINO",
    "openvino-bf16": "OpenVINO in bf16",
    "pytorch": "PyTorch",
    "pytorch-compiled": "PyTorch compiled",
}
SETTINGS = (
    "Settings: as many threads as cores; ONNX Runtime's defaults; OpenVINO by its LATENCY hint; PyTorch in "
    "inference_mode, channels last, compiled with freezing, a compilation a batch size."
)


@dataclass(frozen=True)
class Contender:
    """An engine on a file; PyTorch takes only the architecture of the file."""

    name: str
    precision: str
    device: str

    @property
    def label(self) -> str:
        """As tables name it."""
        where = "" if self.device == "cpu" else f", {self.device}"
        return f"{LABELS[self.name]}, {self.precision}{where}"


def contenders(device: str, wanted: Sequence[str]) -> list[Contender]:
    """All that can be compared on a device, for those of the names wanted."""
    if device == "cpu":
        both = [Contender(name, precision, device) for precision in ("int8", "fp32") for name in LABELS]
        senseless = {("pytorch", "int8"), ("pytorch-compiled", "int8"), ("openvino-bf16", "int8")}
        return [one for one in both if one.name in wanted and (one.name, one.precision) not in senseless]
    # The shipped file runs in fp16 there: the service derives it, and TensorRT is a setting of the service.
    found = [Contender("resight", "fp16", "cuda"), Contender("resight", "fp16", "tensorrt")]
    found += [Contender(name, "fp16", "cuda") for name in ("onnxruntime", "pytorch", "pytorch-compiled")]
    return [one for one in found if one.name in wanted]


def _takes_the_model(contender: Contender) -> bool:
    """Whether it runs the model file: as it is, as what the service derives from it, or its architecture alone."""
    ours_on_gpu = contender.device != "cpu" and contender.name == "resight"
    return contender.precision == "int8" or ours_on_gpu or contender.name.startswith("pytorch")


def measure(options: argparse.Namespace, results: Results, console: Console) -> None:
    """By turns, a batch size after the other."""
    chosen = contenders(options.device, options.only)
    read_model(options.model)  # says early what is wrong with it
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        fresh = options.model
        if not all(map(_takes_the_model, chosen)):
            from benchmarks.fresh import fresh_file

            fresh = fresh_file(options.model, Path(folder), "fp32" if options.device == "cpu" else "fp16")
        running = dict(_started(chosen, fresh, options, results, stack))
        for repeat in range(options.repeats):
            console.print(f"round {repeat + 1} of {options.repeats}")
            for batch in options.batches:
                for contender, worker in running.items():
                    _time(contender, worker, batch, options, results)
    results.notes += [SETTINGS, "fp32 and fp16 files and PyTorch have random weights: for their speed alone."]


def _started(
    chosen: Sequence[Contender], fresh: Path, options: argparse.Namespace, results: Results, stack: ExitStack
) -> Iterator[tuple[Contender, Worker]]:
    for one in chosen:
        try:
            python = python_of(options, one.name in PEERS)
        except BenchmarkError as error:
            results.not_run[one.label] = str(error)
            continue
        model = options.model if _takes_the_model(one) else fresh
        arguments_ = (one.name, str(model.absolute()), str(available_cores()), one.device)
        yield one, stack.enter_context(working("benchmarks.engines", *arguments_, python=python))


def _time(one: Contender, worker: Worker, batch: int, options: argparse.Namespace, results: Results) -> None:
    skipped = one.name == "pytorch-compiled" and batch not in options.compiled_batches
    if one.label in results.not_run or skipped:
        return
    try:
        seconds = statistics.median(worker.ask(batch=batch, seconds=options.seconds))
    except BenchmarkError as error:
        results.not_run[one.label] = str(error)
        return
    results.add(one.label, f"batch {batch}", RATE, batch / seconds)
    results.add(one.label, f"batch {batch}", LATENCY, 1e3 * seconds)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 measured, 2 not possible."""
    parser = peers_option(arguments(__doc__, seconds=1.0), tuple(LABELS))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batches", type=as_counts, default=[1, 8, 16, 32])
    parser.add_argument("--compiled-batches", type=as_counts, default=[1, 8], help="each takes half a minute")
    return command("engine", parser, measure, argv)


if __name__ == "__main__":
    sys.exit(main())
