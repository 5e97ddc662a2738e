"""How fast crops are answered over HTTP, and how much of the raw engine's rate that is: `python -m benchmarks.service`.

ONNX Runtime alone, `resight serve` and the same file behind LitServe, Ray Serve and a plain FastAPI handler take turns,
each alone on the machine. One crop a request is a query against a gallery of drawn crops, more are embedded. The load
is `benchmarks.load`: coroutines over plain sockets on the same machine, whose own processor time is in the figures.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks import BenchmarkError
from benchmarks.drawn import draw_gallery
from benchmarks.engines import raw_engine
from benchmarks.load import LoadError, offer, pictures, request_of
from benchmarks.options import as_count, as_counts
from benchmarks.results import Results, arguments, command, peers_option, python_of
from benchmarks.served import Server, fill_gallery, free_port, running, served
from benchmarks.worker import Worker
from service.inference.model import read_model
from service.settings import available_cores

OURS, RAW = "Resight", "ONNX Runtime alone"
PEERS = {"litserve": "LitServe", "ray": "Ray Serve", "plain": "plain FastAPI handler"}
RATE, MEDIAN, LATE, OWN, MEMORY = "crops/s", "ms, median", "ms, 99th percentile", "load's share of a core", "MB"
ONE, WITHOUT_CAMERA = "1 crop, 1 client", "1 crop, 32 clients, a camera left out"
BATCHES = (1, 8, 16, 32)  # of the raw engine, whose best counts
NPY = "application/x-npy"
PICTURES = 64
WARM_SECONDS = 1.0
BATCHED = ("--max-batch", "16", "--wait", "0.01")
SETTINGS = (
    "Peers: the same decoder, file, threads and FAISS (IndexFlatIP, BLAS from four queries on); LitServe with "
    "max_batch_size 16, batch_timeout 0.01 s, one worker a route, fast_queue; Ray Serve with max_batch_size 16, "
    "batch_wait_timeout_s 0.01, one replica, the batch in a thread; the plain handler in FastAPI's pool of threads. "
    "Resight with its defaults."
)


@dataclass(frozen=True)
class Case:
    """So many clients that send requests of so many crops."""

    crops: int
    clients: int
    without_camera: bool = False

    def __str__(self) -> str:
        crops = f"{self.crops} crop{'s' * (self.crops > 1)}"
        clients = f"{self.clients} client{'s' * (self.clients > 1)}"
        return f"{crops}, {clients}{', a camera left out' * self.without_camera}"

    def requests(self) -> list[bytes]:
        """Made once; queries for one crop, embedding for more."""
        drawn = pictures(PICTURES)
        if self.crops > 1:
            starts = range(0, PICTURES, self.crops)
            return [request_of("/embed", *drawn[start : start + self.crops], accept=NPY) for start in starts]
        fields = {"exclude_camera": "c3"} if self.without_camera else None
        return [request_of("/query", picture, fields=fields) for picture in drawn]


def cases(crops: Sequence[int], clients: Sequence[int], most: int) -> list[Case]:
    """All with at most so many crops in flight; more wait for seconds on two cores, and say nothing new."""
    return [Case(*pair) for pair in product(crops, clients) if pair[0] * pair[1] <= most]


def measure(options: argparse.Namespace, results: Results, console: Console) -> None:
    """A round is a turn of each."""
    model, info = options.model.resolve(), read_model(options.model).info
    asked = cases(options.crops, options.clients, options.most)
    settings = {} if options.device == "cpu" else {"DEVICE": options.device}
    with tempfile.TemporaryDirectory() as folder, raw_engine(model, available_cores()) as raw:
        gallery, vectors = Path(folder) / "gallery", Path(folder) / "gallery.npy"
        fill_gallery(gallery, info, options.gallery)
        if set(options.only) & set(PEERS):
            np.save(vectors, np.concatenate([rows for _, rows in draw_gallery(options.gallery, info.embedding_dim)]))
        for repeat in range(options.repeats):
            console.print(f"round {repeat + 1} of {options.repeats}")
            if "resight" in options.only:
                mine = [*asked, Case(1, 32, without_camera=True)] if Case(1, 32) in asked else asked
                with _raw_around(raw, options, results):
                    _turn(OURS, partial(served, model, gallery, settings), mine, options.seconds, results)
            for name in [name for name in PEERS if name in options.only]:
                start = partial(_peer, name, options, model, vectors)
                _turn(PEERS[name], start, asked, options.seconds, results)
    results.notes.append(SETTINGS)


@contextmanager
def _raw_around(raw: Worker, options: argparse.Namespace, results: Results) -> Iterator[None]:
    """Measures the raw engine before and after; their mean is a round's figure. On a GPU it runs another file."""
    if options.device != "cpu":
        yield
        return
    before = _raw(raw, options)
    yield
    after = _raw(raw, options)
    results.add(RAW, "best batch", RATE, (before[0] + after[0]) / 2)
    results.add(RAW, ONE, MEDIAN, (before[1] + after[1]) / 2)


def _raw(raw: Worker, options: argparse.Namespace) -> tuple[float, float]:
    """Crops a second of the best batch size, and ms for one crop."""
    taken = {batch: statistics.median(raw.ask(batch=batch, seconds=options.seconds / 2)) for batch in BATCHES}
    return max(batch / seconds for batch, seconds in taken.items()), 1e3 * taken[1]


@contextmanager
def _peer(name: str, options: argparse.Namespace, model: Path, vectors: Path) -> Iterator[Server]:
    port = free_port()
    module = [python_of(options, peer=True), "-m", f"benchmarks.peers.{name}_app"]
    files = ["--model", str(model), "--gallery", str(vectors), "--threads", str(available_cores())]
    begin = [*module, *files, *BATCHED, "--port", str(port)]
    with running(begin, port, "/health", vectors.with_suffix(".log")) as server:
        yield server


def _turn(
    subject: str,
    start: Callable[[], AbstractContextManager[Server]],
    asked: Sequence[Case],
    seconds: float,
    results: Results,
) -> None:
    """One server, all cases; what does not start or answer is not run, and said."""
    if subject in results.not_run:
        return
    try:
        with start() as server:
            for case in (Case(32, 1), Case(1, 8)):
                offer(server.url, case.requests(), case.clients, WARM_SECONDS)
            for case in asked:
                found = offer(server.url, case.requests(), case.clients, seconds)
                results.add(subject, str(case), RATE, case.crops * found.rate)
                results.add(subject, str(case), MEDIAN, found.median)
                results.add(subject, str(case), LATE, found.late)
                results.add(subject, "the most", OWN, found.own_share)
            results.add(subject, "all its processes", MEMORY, server.memory / 1e6)
    except (LoadError, BenchmarkError) as error:
        if subject == OURS:
            raise
        results.not_run[subject] = str(error)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 measured, 2 not possible."""
    parser = peers_option(arguments(__doc__, seconds=3.0), ("resight", *PEERS))
    parser.add_argument("--device", choices=("cpu", "cuda", "tensorrt"), default="cpu")
    parser.add_argument("--gallery", type=as_count, default=20_000, help="crops in the gallery (default 20,000)")
    parser.add_argument("--crops", type=as_counts, default=[1, 8, 32], help="a request")
    parser.add_argument("--clients", type=as_counts, default=[1, 8, 32])
    parser.add_argument("--most", type=as_count, default=256, help="crops in flight (default 256)")
    return command("service", parser, measure, argv)


if __name__ == "__main__":
    sys.exit(main())
