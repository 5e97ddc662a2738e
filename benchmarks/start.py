"""How soon the service answers after its start, and in how much memory: `python -m benchmarks.start --sizes 20000`.

With the snapshot of the index that the last stop left, and without one: from the start of the process to ready, and to
the first exact answer to a query. `--dim 512` measures a network of the same architecture with that many values.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
from rich.console import Console

from benchmarks.load import LoadError, offer, pictures, request_of
from benchmarks.options import as_count, as_counts
from benchmarks.results import Results, arguments, command
from benchmarks.served import fill_gallery, served
from service.gallery.folder import SNAPSHOT_NAME
from service.inference.model import read_model

WITH, WITHOUT = "with a snapshot", "without a snapshot"
READY, ANSWERED, MEMORY = "s to ready", "s to the first answer", "MB after 32 clients' queries"
CLIENTS = 32


def subject(size: int, dim: int) -> str:
    """As tables name a gallery."""
    return f"{size:,} x {dim:,}"


def measure(options: argparse.Namespace, results: Results, console: Console) -> None:
    """Each size is filled once, then started again and again."""
    with tempfile.TemporaryDirectory() as folder:
        model = options.model.resolve()
        if options.dim:
            from benchmarks.fresh import fresh_file

            model = fresh_file(model, Path(folder), "fp32", options.dim)
        info = read_model(model).info
        for size in options.sizes:
            gallery = Path(folder) / f"gallery-{size}"
            console.print(f"{size:,} crops")
            fill_gallery(gallery, info, size)
            for repeat in range(options.repeats):
                console.print(f"round {repeat + 1} of {options.repeats}")
                for way in (WITH, WITHOUT):
                    if way == WITHOUT:
                        (gallery / SNAPSHOT_NAME).unlink(missing_ok=True)
                    elif not (gallery / SNAPSHOT_NAME).is_file():
                        raise LoadError(f"the stop of the service left no {SNAPSHOT_NAME}")
                    _start(model, gallery, subject(size, info.embedding_dim), way, options.seconds, results)
    if options.dim:
        results.notes.append(f"A network of random weights with {options.dim} values, in fp32.")


def _start(model: Path, gallery: Path, name: str, way: str, seconds: float, results: Results) -> None:
    drawn = pictures(64)
    begun = time.perf_counter()
    with served(model, gallery) as server:
        results.add(name, way, READY, time.perf_counter() - begun)
        answer = httpx.post(f"{server.url}/query", files={"images": ("a.jpg", drawn[0])}, timeout=60).json()
        results.add(name, way, ANSWERED, time.perf_counter() - begun)
        if not answer.get("exact") and way == WITHOUT:
            raise LoadError(f"the first answer after a start without a snapshot is not exact: {str(answer)[:200]}")
        offer(server.url, [request_of("/query", picture) for picture in drawn], CLIENTS, seconds)
        results.add(name, way, MEMORY, server.memory / 1e6)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 measured, 2 not possible."""
    parser = arguments(__doc__)
    parser.add_argument("--sizes", type=as_counts, default=[20_000, 100_000], help="crops in the gallery")
    parser.add_argument("--dim", type=as_count, default=0, help="of the embedding; default: the model's")
    return command("start", parser, measure, argv)


if __name__ == "__main__":
    sys.exit(main())
