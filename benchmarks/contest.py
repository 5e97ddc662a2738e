"""Several ways to compute the same thing, each run in a process of its own: time, memory and figures side by side."""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.random import default_rng
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.options import as_count
from training.data.dataset import DataError
from training.data.reading import read
from training.retrieval.embedded import Embedded
from training.retrieval.metrics import LabelledPair
from training.retrieval.ranking import ranking_of

Figures = tuple[float, float]  # rank-1 and mAP
CAMERAS = 6
PEOPLE_OF_MARKET = 751  # 750 test identities and the distractors
SEPARATION = 2.5  # of a match from the mean stranger, in deviations of strangers: figures are neither 0 nor 1
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Size:
    """How many pictures there are, and how long an embedding is."""

    queries: int
    gallery: int
    dim: int

    def __str__(self) -> str:
        return f"{self.queries:,} x {self.gallery:,} x {self.dim:,}"


FULL = Size(queries=3_368, gallery=15_913, dim=2_048)  # Market-1501 and a ResNet-50


@dataclass(frozen=True)
class Written:
    """Embeddings that `training/evaluate.py --save` wrote, and the data set that they are of."""

    folder: Path
    data: Path

    def __str__(self) -> str:
        return f"{self.folder.name} of {self.data.name}"


@dataclass(frozen=True)
class Problem:
    """Unit embeddings [Q, D] and [G, D] of people, and who they are."""

    query: NDArray[np.float32]
    gallery: NDArray[np.float32]
    labels: LabelledPair


@dataclass(frozen=True)
class Result:
    """One run: `peak` is the most memory in bytes that was held besides the embeddings."""

    seconds: float
    peak: int
    figures: Figures


@dataclass(frozen=True)
class Aims:
    """What the first contender is to reach at full size; `faster`: than whom, and how many times; `agreement`: how
    far the figures of any two may lie apart."""

    seconds: float = math.inf
    megabytes: float = math.inf
    faster: Mapping[str, float] = field(default_factory=dict)
    agreement: float = 1e-6

    def missed(self, results: Mapping[str, list[Result]]) -> list[str]:
        """The aims that the medians miss, a sentence each; one over a contender that did not run is not missed."""
        ours, *_ = results.values()
        seconds, megabytes = _seconds(ours), _megabytes(ours)
        missed = []
        if seconds > self.seconds:
            missed.append(f"{seconds:.2f} s, the aim is {self.seconds:g} s")
        if megabytes > self.megabytes:
            missed.append(f"{megabytes:.0f} MB, the aim is {self.megabytes:g} MB")
        for name, times in self.faster.items():
            if name in results and _seconds(results[name]) < times * seconds:
                ratio = _seconds(results[name]) / seconds
                missed.append(f"{ratio:.2f} times as fast as {name}, the aim is {times:g} times")
        return missed


Contender = Callable[[Problem], Figures]


class Disagreement(RuntimeError):
    """Two contenders measured different figures on the same problem."""


def draw_problem(size: Size, seed: int = 0) -> Problem:
    """Pictures around a centre a person, in six cameras; drawn in place, because the memory's peak is measured."""
    random = default_rng(seed)
    people = min(PEOPLE_OF_MARKET, max(2, size.gallery // 4))
    centres = random.standard_normal((people, size.dim), np.float32)
    # Two pictures of a person have a cosine of 1 / (1 + noise²), strangers one of 0 ± 1 / √D.
    noise = np.float32(max(0.3, size.dim**0.5 / SEPARATION - 1) ** 0.5)

    def draw(count: int, lowest: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        identities = random.integers(lowest, people, count)
        pictures = random.standard_normal((count, size.dim), np.float32)
        pictures *= noise
        for picture, identity in zip(pictures, identities, strict=True):
            picture += centres[identity]
            picture /= np.linalg.norm(picture)
        return pictures, identities

    query, asked = draw(size.queries, 1)
    gallery, answers = draw(size.gallery, 0)  # 0: distractors
    cameras = (random.integers(1, CAMERAS + 1, count) for count in (size.queries, size.gallery))
    return Problem(query, gallery, LabelledPair.of(asked, next(cameras), answers, next(cameras)))


def read_problem(written: Written) -> Problem:
    """What was written of a data set's test part.

    Raises:
        DataError: the data cannot be read, or the embeddings are not of its pictures.
    """
    ranking = ranking_of(read(written.data), "test")
    embedded = Embedded.load(written.folder, len(ranking.query), len(ranking.gallery), None)
    return Problem(embedded.query, embedded.gallery, ranking.labels())


def compete(
    contenders: Mapping[str, Contender], source: Size | Written, repeats: int, agreement: float
) -> dict[str, list[Result]]:
    """Results by name. The contenders take turns, so that a slow spell of the machine hits all of them.

    Raises:
        Disagreement: their figures differ by more than `agreement`.
    """
    results: dict[str, list[Result]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, contender in contenders.items():
            with multiprocessing.get_context("spawn").Pool(1) as process:
                results[name].append(process.apply(_run, (contender, source)))
    (first, (expected, *_)), *others = results.items()
    for name, (found, *_) in others:
        if not np.allclose(found.figures, expected.figures, rtol=0, atol=agreement):
            raise Disagreement(f"{name} measured {found.figures}, {first} {expected.figures}")
    return results


def _run(contender: Contender, source: Size | Written) -> Result:
    problem = draw_problem(source) if isinstance(source, Size) else read_problem(source)
    before, began = _peak_memory(), time.perf_counter()
    figures = contender(problem)
    seconds = time.perf_counter() - began
    return Result(seconds, _peak_memory() - before, figures)


def _peak_memory() -> int:
    """The most memory in bytes that this process has held so far (of Linux: ru_maxrss is in KiB there)."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def table(title: str, results: Mapping[str, list[Result]]) -> Table:
    """Medians, and how many times as long as the first one the others take."""
    shown = Table(title=title)
    for name in ("", "seconds", "times ours", "peak MB", "rank-1", "mAP"):
        shown.add_column(name, justify="right" if name else "left")
    medians = {name: _seconds(runs) for name, runs in results.items()}
    ours = next(iter(medians.values()))
    for name, runs in results.items():
        rank1, mean_ap = runs[0].figures
        cells = (f"{medians[name]:.3f}", f"{medians[name] / ours:.1f}", f"{_megabytes(runs):.0f}")
        shown.add_row(name, *cells, f"{100 * rank1:.4f}", f"{100 * mean_ap:.4f}")
    return shown


def _seconds(runs: list[Result]) -> float:
    return statistics.median(run.seconds for run in runs)


def _megabytes(runs: list[Result]) -> float:
    return statistics.median(run.peak for run in runs) / 1e6


def main(title: str, contenders: Mapping[str, Contender], aims: Aims, description: str, argv: list[str] | None) -> int:
    """The command of a benchmark: sizes, repeats and threads as options; prints the table.

    Exit codes: 0 measured, 1 the contenders disagree or, at full size or on real embeddings, an aim is missed, 2 bad
    input.
    """
    ours, *others = contenders
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=as_count, default=FULL.queries)
    parser.add_argument("--gallery", type=as_count, default=FULL.gallery)
    parser.add_argument("--dim", type=as_count, default=FULL.dim)
    parser.add_argument("--repeats", type=as_count, default=3)
    parser.add_argument("--threads", type=as_count, default=2, help="of the matrix product (default 2)")
    parser.add_argument("--only", nargs="+", choices=others, default=others, help="beside ours")
    parser.add_argument("--embeddings", type=Path, metavar="FOLDER", help="query.npy and gallery.npy of --data")
    parser.add_argument("--data", type=Path, metavar="PATH", help="of which --embeddings were written; else drawn ones")
    options = parser.parse_args(argv)
    if (options.embeddings is None) != (options.data is None):
        parser.error("--embeddings and --data belong together")
    os.environ.update(dict.fromkeys(THREADS, str(options.threads)))  # the processes that are started inherit it
    source: Size | Written = Size(options.queries, options.gallery, options.dim)
    if options.embeddings:
        source = Written(options.embeddings, options.data)
    chosen = {name: contender for name, contender in contenders.items() if name in (ours, *options.only)}
    try:
        results = compete(chosen, source, options.repeats, aims.agreement)
    except Disagreement as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    Console().print(table(f"{title}: {source}, {options.threads} threads, median of {options.repeats}", results))
    missed = aims.missed(results) if source == FULL or isinstance(source, Written) else []
    for sentence in missed:
        print(f"missed: {sentence}", file=sys.stderr)
    return int(bool(missed))
