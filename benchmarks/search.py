"""How fast and how rightly the nearest crops are found: `python -m benchmarks.search --crops 20000`.

Our gallery, the whole of its use case, against indexes alone: FAISS flat with its default and with its threshold for
BLAS tuned, FAISS float16, hnswlib and usearch, by 1, 16 and 32 queries at once, by filters that let a tenth and a
thousandth through, and by recall@10 against exact search. Vectors are drawn: 20 a person, at a cosine of 0.7.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks import BenchmarkError
from benchmarks.drawn import draw_gallery, draw_queries
from benchmarks.options import as_count, as_counts
from benchmarks.results import Results, arguments, command, peers_option, python_of
from benchmarks.searchers import TENTH, THOUSANDTH, TOP, fill, rounded
from benchmarks.worker import Worker, working
from service.gallery.building import EXACT_UP_TO

OURS = "Resight, whole query"
OURS_COMPRESSED = "Resight, compressed"
OURS_ON_GPU = "Resight, exact on the GPU"
MILVUS = "milvus"
LABELS = {
    "resight": OURS,
    "resight-exact": "Resight, exact",
    "resight-compressed": OURS_COMPRESSED,
    "resight-hnsw": "Resight, hnsw",
    "faiss": "FAISS flat",
    "faiss-tuned": "FAISS flat, tuned",
    "faiss-fp16": "FAISS fp16",
    "hnswlib": "hnswlib",
    "usearch": "usearch",
    MILVUS: "Milvus",
    "resight-gpu": OURS_ON_GPU,
    "resight-cagra": "Resight, cagra on the GPU",
    "faiss-gpu": "FAISS flat fp16 on the GPU",
    "pytorch-gpu": "PyTorch fp16 on the GPU",
}
PEERS = ("hnswlib", "usearch")
STORED = (
    "resight",
    "resight-exact",
    "resight-compressed",
    "resight-hnsw",
)  # they open a gallery that was filled before
GPU = ("resight-gpu", "faiss-gpu", "pytorch-gpu")  # with crops of their own, whose nearest nobody has looked for
ON_GPU = (*GPU, "resight-cagra")
GRAPHS = ("resight-hnsw", "hnswlib", "usearch")  # they take minutes to build where the others take seconds
TIME, RECALL, BUILD, MEMORY = "ms a query", "recall@10", "s to build", "MB"
ONE = "1 query"
COMPRESSED_FROM = 300_000  # crops
QUERIES = 32  # whose recall is measured
SHARES = {TENTH: "1 query, a tenth passes", THOUSANDTH: "1 query, a thousandth passes"}


def exact(crops: int, dim: int) -> list[set[int]]:
    """The numbers of the TOP nearest crops of each query."""
    queries = rounded(draw_queries(QUERIES, crops, dim))
    best: list[list[tuple[float, int]]] = [[] for _ in queries]
    for numbers, rows in draw_gallery(crops, dim):
        cosines = queries @ rounded(rows).T
        places = np.argsort(-cosines, axis=1)[:, :TOP]
        for known, row, found in zip(best, cosines, places, strict=True):
            known += [(float(row[place]), numbers[place]) for place in found.tolist()]
            known.sort(reverse=True)
            del known[TOP:]
    return [{number for _, number in known} for known in best]


def recall(found: Sequence[Sequence[int]], wanted: Sequence[set[int]]) -> float:
    """The share of the nearest that was found, over all queries."""
    hits = sum(len(wanted_ & set(found_[:TOP])) for found_, wanted_ in zip(found, wanted, strict=True))
    return hits / sum(map(len, wanted))


def measure(options: argparse.Namespace, results: Results, console: Console) -> None:
    """One index after the other: all of them would not fit the memory. `repeats` are spread over its time."""
    wanted = None if set(options.only) <= set(GPU) else exact(options.crops, options.dim)
    with TemporaryDirectory() as folder:
        if any(name in STORED for name in options.only):
            console.print("our gallery is filled")
            fill(Path(folder), options.crops, options.dim)
        _all(Path(folder), wanted, options, results, console)
    results.notes.append("Vectors are drawn, not those of a model: 20 a person at a cosine of 0.7, strangers at 0.")


def _all(
    folder: Path, wanted: Sequence[set[int]] | None, options: argparse.Namespace, results: Results, console: Console
) -> None:
    for name in options.only:
        label = LABELS[name]
        if reason := _why_not(name, options):
            results.not_run[label] = reason
            continue
        console.print(label)
        try:
            python = python_of(options, name in PEERS)
            with working("benchmarks.searchers", name, python=python) as worker:
                built = worker.ask(do="build", crops=options.crops, dim=options.dim, folder=str(folder))
                _one(label, worker, built, None if name in GPU else wanted, options, results)
        except BenchmarkError as error:
            results.not_run[label] = str(error)


def _why_not(name: str, options: argparse.Namespace) -> str:
    """Why an index is left out; empty where it is not."""
    if name == MILVUS:
        return "a server of its own, which these benchmarks do not start"
    if name == "resight-exact" and options.crops <= EXACT_UP_TO:
        return f"`auto` is the same up to {EXACT_UP_TO:,} crops"
    if name == "resight-compressed" and options.crops < COMPRESSED_FROM:
        return f"for galleries from {COMPRESSED_FROM:,} crops on"
    if name in GRAPHS and options.crops > options.graphs:
        return f"its graph is built up to {options.graphs:,} crops; see make bench-large"
    return ""


def _one(
    label: str,
    worker: Worker,
    built: dict[str, Any],
    wanted: Sequence[set[int]] | None,
    options: argparse.Namespace,
    results: Results,
) -> None:
    results.add(label, "all crops", BUILD, built["seconds"])
    results.add(label, "all crops", MEMORY, built["bytes"] / 1e6)
    if built["settings"]:
        results.notes.append(f"{label}: {built['settings']}.")
    if wanted is not None:
        results.add(label, f"{QUERIES} queries", RECALL, recall(worker.ask(do="near", batch=QUERIES), wanted))
    for _ in range(options.repeats):
        for batch in options.batches:
            taken = worker.ask(do="search", batch=batch, share=None, seconds=options.seconds)
            case = ONE if batch == 1 else f"{batch} queries at once"
            results.add(label, case, TIME, 1e3 * statistics.median(taken) / batch)
        for share, case in SHARES.items():
            with suppress(BenchmarkError):  # no filters; the table shows a dash
                taken = worker.ask(do="search", batch=1, share=share, seconds=options.seconds)
                results.add(label, case, TIME, 1e3 * statistics.median(taken))


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 measured, 2 not possible."""
    parser = peers_option(arguments(__doc__, seconds=0.3, turns="of each index, one after the other"), tuple(LABELS))
    parser.set_defaults(only=[name for name in LABELS if name not in ON_GPU])
    parser.add_argument("--crops", type=as_count, default=20_000)
    parser.add_argument("--dim", type=as_count, default=2048)
    parser.add_argument("--batches", type=as_counts, default=[1, 16, 32])
    parser.add_argument("--graphs", type=int, default=20_000, help="most crops for hnswlib and usearch")
    return command("search", parser, measure, argv)


if __name__ == "__main__":
    sys.exit(main())
