"""How fast JPEG crops become the model's input, on one thread: `python -m benchmarks.decode`.

Ours against plain Pillow, OpenCV and simplejpeg, on crops of 64 x 128 pixels (those of Market-1501) and 256 x 512. The
share of values that differ from Pillow's says which of them a model trained on Pillow's pixels may use.
"""

from __future__ import annotations

import argparse
import base64
import sys
from collections.abc import Sequence
from contextlib import ExitStack

from rich.console import Console

from benchmarks import BenchmarkError
from benchmarks.load import pictures
from benchmarks.results import Results, arguments, command, peers_option, python_of
from benchmarks.worker import working

LABELS = {
    "resight": "Resight",
    "pillow": "Pillow",
    "opencv": "OpenCV",
    "simplejpeg": "simplejpeg and Pillow",
    "simplejpeg-fast": "simplejpeg, fast and scaled, and OpenCV",
}
PEERS = ("opencv", "simplejpeg", "simplejpeg-fast")
SIZES = ((64, 128), (256, 512))
RATE, DIFFERENT = "pictures/s on one thread", "values unlike Pillow's, %"
PICTURES = 16


def measure(options: argparse.Namespace, results: Results, console: Console) -> None:
    """By turns, a size after the other."""
    drawn = {size: [base64.b64encode(file).decode() for file in pictures(PICTURES, size)] for size in SIZES}
    with ExitStack() as stack:
        running = {}
        for name in options.only:
            try:
                python = python_of(options, name in PEERS)
            except BenchmarkError as error:
                results.not_run[LABELS[name]] = str(error)
                continue
            running[LABELS[name]] = stack.enter_context(working("benchmarks.decoders", name, python=python))
        for repeat in range(options.repeats):
            console.print(f"round {repeat + 1} of {options.repeats}")
            for (width, height), files in drawn.items():
                for label, worker in running.items():
                    if label in results.not_run:
                        continue
                    try:
                        found = worker.ask(pictures=files, seconds=options.seconds)
                    except BenchmarkError as error:
                        results.not_run[label] = str(error)
                        continue
                    results.add(label, f"{width} x {height}", RATE, found["rate"])
                    if not repeat:
                        results.add(label, f"{width} x {height}", DIFFERENT, 100 * found["different"])


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 measured, 2 not possible."""
    parser = peers_option(arguments(__doc__, seconds=0.5), tuple(LABELS))
    return command("decode", parser, measure, argv)


if __name__ == "__main__":
    sys.exit(main())
