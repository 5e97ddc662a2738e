"""How the cost of a query grows with the gallery: `python -m benchmarks.growth --sizes 10000,30000,100000`.

One query of one shot through our gallery's whole use case, and the exponent of N that fits the medians.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from rich.console import Console

from benchmarks.options import as_count, as_counts
from benchmarks.results import Results, arguments, command
from benchmarks.searchers import TOP, fill
from benchmarks.worker import working

SUBJECT, FIT = "Resight, whole query", "fitted"
TIME, MEMORY, EXPONENT = "ms a query", "MB", "exponent of N"


def exponent(sizes: Sequence[int], costs: Sequence[float]) -> float:
    """The slope of the least-squares line through the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def span(sizes: Sequence[int]) -> str:
    """What an exponent was fitted to."""
    return f"{min(sizes):,} to {max(sizes):,}"


def measure(options: argparse.Namespace, results: Results, console: Console) -> None:
    """A process a size, so that the memory of one is not another's; then they take turns."""
    with ExitStack() as stack:
        workers = {}
        for size in options.sizes:
            console.print(f"{size:,} crops")
            folder = stack.enter_context(TemporaryDirectory())
            fill(Path(folder), size, options.dim)
            workers[size] = stack.enter_context(working("benchmarks.searchers", "resight"))
            built = workers[size].ask(do="build", crops=size, dim=options.dim, folder=folder)
            results.add(SUBJECT, f"{size:,} crops", MEMORY, built["bytes"] / 1e6)
        for repeat in range(options.repeats):
            console.print(f"round {repeat + 1} of {options.repeats}")
            for size, worker in workers.items():
                taken = worker.ask(do="search", batch=1, share=None, seconds=options.seconds)
                results.add(SUBJECT, f"{size:,} crops", TIME, 1e3 * statistics.median(taken))
    if len(options.sizes) > 1:
        costs = [figure.median for figure in results.of(TIME)]
        results.add(SUBJECT, span(options.sizes), EXPONENT, exponent(options.sizes, costs))
    results.notes.append(f"Drawn vectors of {options.dim:,} values; the {TOP} nearest identities with their crops.")


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 measured, 2 not possible."""
    parser = arguments(__doc__, seconds=0.5)
    parser.add_argument("--sizes", type=as_counts, default=[10_000, 30_000, 100_000])
    parser.add_argument("--dim", type=as_count, default=2048)
    return command("growth", parser, measure, argv)


if __name__ == "__main__":
    sys.exit(main())
