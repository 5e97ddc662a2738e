"""How much of the raw engine's rate is left behind HTTP: `python -m benchmarks.service_rate`.

ONNX Runtime alone and `resight serve` run the same file by turns. The service holds a gallery of drawn crops, which are
searched exactly. Aims: bulk embedding keeps 0.92 of the raw rate, queries of one crop by 32 clients 0.80, with and
without a camera that is left out; one client's query takes the raw engine's time for one crop and at most 8 ms more.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.host import host
from benchmarks.load import LoadError, in_turn, percentile, pictures, process_of, request_of
from benchmarks.raw_engine import RawEngine, raw_engine
from benchmarks.served import fill_gallery, served
from service.inference.model import ModelError, read_model

BATCHES = (1, 8, 16, 32)
BULK = 32  # crops a request
BULK_CLIENTS, CLIENTS = 4, 32
NPY = "application/x-npy"
RAW, RAW_ONE = "raw engine, images/s", "raw engine, one crop, ms"
ONE, LOAD, MEMORY = "one client, one crop, ms", "processor time of the load, share", "memory of the service, MB"


@dataclass(frozen=True)
class Question:
    """So many clients that send requests of so many crops each; `aim`: the share of the raw rate to keep."""

    name: str
    clients: int
    crops: int
    requests: Sequence[bytes]
    aim: float


@dataclass(frozen=True)
class Target:
    """A figure and what it should be: at least `aim`, or at most where `at_most`."""

    name: str
    value: float
    aim: float
    at_most: bool = False

    @property
    def reached(self) -> bool:
        return self.value <= self.aim if self.at_most else self.value >= self.aim


def questions() -> list[Question]:
    """Each with its own requests, made once."""
    drawn = pictures(64)
    bulk = [request_of("/embed", *drawn[start : start + BULK], accept=NPY) for start in (0, BULK)]
    plain = [request_of("/query", picture) for picture in drawn]
    filtered = [request_of("/query", picture, fields={"exclude_camera": "c3"}) for picture in drawn]
    return [
        Question(f"{BULK_CLIENTS} clients, {BULK} crops a request, embedded", BULK_CLIENTS, BULK, bulk, 0.92),
        Question(f"{CLIENTS} clients, one crop, queried", CLIENTS, 1, plain, 0.80),
        Question(f"{CLIENTS} clients, one crop, one camera left out", CLIENTS, 1, filtered, 0.80),
    ]


def measure(engine: RawEngine, url: str, repeats: int, seconds: float, console: Console) -> dict[str, list[float]]:
    """Figures by name, one a repeat. The raw rate is that of its best batch size in each. Raises LoadError."""
    found: dict[str, list[float]] = defaultdict(list)
    asked = questions()
    for repeat in range(repeats):
        console.print(f"round {repeat + 1} of {repeats}")
        runs = {batch: engine.run(batch, seconds / 2) for batch in BATCHES}
        found[RAW_ONE].append(1e3 * statistics.median(runs[1]))
        found[RAW].append(max(batch / statistics.median(taken) for batch, taken in runs.items()))
        for question in asked:
            found[question.name].append(_rate(url, question, seconds, found))
        replies = asyncio.run(in_turn(url, asked[1].requests, 1, seconds))
        found[ONE].append(percentile(replies, 50))
        found[MEMORY].append(process_of(url).memory / 1e6)
    return dict(found)


def _rate(url: str, question: Question, seconds: float, found: dict[str, list[float]]) -> float:
    """Crops a second, from the first request to the last answer."""
    before = _own_seconds()
    replies = asyncio.run(in_turn(url, question.requests, question.clients, seconds))
    lasted = max(reply.sent + reply.seconds for reply in replies)
    found[LOAD].append((_own_seconds() - before) / lasted)
    statuses = {reply.status for reply in replies}
    if statuses != {200}:
        raise LoadError(f"{question.name}: answered with {sorted(statuses)}, not only with 200")
    return question.crops * len(replies) / lasted


def _own_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def targets(found: dict[str, list[float]]) -> list[Target]:
    """What was aimed at, from medians; ratios are those of each round."""
    rows = []
    for question in questions():
        ratios = [ours / raw for ours, raw in zip(found[question.name], found[RAW], strict=True)]
        rows.append(Target(f"{question.name}: share of the raw rate", statistics.median(ratios), question.aim))
    more = [ours - raw for ours, raw in zip(found[ONE], found[RAW_ONE], strict=True)]
    rows.append(Target("one client, one crop: ms more than the raw engine", statistics.median(more), 8.0, at_most=True))
    return rows


def show(found: dict[str, list[float]], rows: list[Target], console: Console) -> None:
    """Two tables: every figure with its spread, and the aims."""
    figures = Table(title="median and spread")
    for heading in ("", "median", "least", "most"):
        figures.add_column(heading, justify="right" if heading else "left")
    for name, values in found.items():
        figures.add_row(name, *(f"{value:.2f}" for value in (statistics.median(values), min(values), max(values))))
    aims = Table(title="aims")
    for heading in ("", "figure", "aim", ""):
        aims.add_column(heading)
    for row in rows:
        aim = f"{'<=' if row.at_most else '>='} {row.aim:g}"
        aims.add_row(row.name, f"{row.value:.3f}", aim, "reached" if row.reached else "short")
    console.print(figures, aims)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 measured, 2 not possible."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("models/market1501-int8.onnx"))
    parser.add_argument("--crops", type=int, default=20_000, help="in the gallery (default 20,000)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement (default 10)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    options = parser.parse_args(argv)
    console = Console()
    model = options.model.resolve()
    settings = {name: str(value) for name, value in vars(options).items() if name != "json"}
    try:
        info = read_model(options.model).info
        with tempfile.TemporaryDirectory() as folder:
            gallery = Path(folder) / "gallery"
            fill_gallery(gallery, info, options.crops)
            with raw_engine(model, len(os.sched_getaffinity(0))) as engine, served(model, gallery) as url:
                found = measure(engine, url, options.repeats, options.seconds, console)
    except (LoadError, ModelError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    rows = targets(found)
    show(found, rows, console)
    if options.json:
        aims = [{"name": row.name, "value": row.value, "aim": row.aim, "reached": row.reached} for row in rows]
        report = {"host": host(), "settings": settings, "figures": found, "aims": aims}
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
