"""What a benchmark found: figures with their spread, where they were measured, as JSON and as tables.

Every command of this folder that writes JSON is a `measure` function given to `command`: options, skipping what was
measured already, exit codes and the table are the same for all.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import BenchmarkError
from benchmarks.host import host
from benchmarks.options import as_amount, as_count

CODE = ("benchmarks/*.py", "benchmarks/peers", "service", "training", "models", "constraints.txt")
PEERS_PYTHON = Path(".venv-peers/bin/python")  # `make peers` makes it
MODIFIED = "-modified"
UNSAID = ("json", "resume", "peers")  # options that change no figure


@dataclass(frozen=True)
class Figure:
    """What `subject` reached in `case`, once a repeat."""

    subject: str
    case: str
    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def __str__(self) -> str:
        """The median, and in brackets the least and the most."""
        if len(self.values) == 1 or min(self.values) == max(self.values):
            return digits(self.median)
        return f"{digits(self.median)} ({digits(min(self.values))}–{digits(max(self.values))})"


@dataclass
class Results:
    """One question's answer. `not_run`: subject -> why; `notes`: sentences that a reader of the figures needs."""

    question: str
    settings: dict[str, str]
    host: dict[str, str]
    code: str
    figures: list[Figure] = field(default_factory=list)
    not_run: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    complete: bool = False

    def add(self, subject: str, case: str, unit: str, *values: float) -> None:
        """One repeat more, or several, of a figure."""
        for place, known in enumerate(self.figures):
            if (known.subject, known.case, known.unit) == (subject, case, unit):
                self.figures[place] = Figure(subject, case, unit, (*known.values, *values))
                return
        self.figures.append(Figure(subject, case, unit, tuple(values)))

    def find(self, subject: str, case: str, unit: str) -> Figure | None:
        """None where it was not measured."""
        return next((f for f in self.figures if (f.subject, f.case, f.unit) == (subject, case, unit)), None)

    def of(self, unit: str, subject: str | None = None, case: str | None = None) -> list[Figure]:
        """Figures of this unit, and subject and case where given."""
        return [
            figure
            for figure in self.figures
            if figure.unit == unit and subject in (None, figure.subject) and case in (None, figure.case)
        ]

    def write(self, path: Path) -> None:
        """Writes the JSON, whole or not at all. Raises BenchmarkError where that cannot be done."""
        rounded = asdict(self)
        for figure in rounded["figures"]:
            figure["values"] = [float(f"{value:.5g}") for value in figure["values"]]
        with _unfinished(path) as unfinished:
            unfinished.write_text(json.dumps(rounded, indent=1, ensure_ascii=False) + "\n")
            unfinished.replace(path)

    @classmethod
    def read(cls, path: Path) -> Results:
        """Raises BenchmarkError for a file that is none of these."""
        try:
            found = json.loads(path.read_text())
            found["figures"] = [Figure(**{**item, "values": tuple(item["values"])}) for item in found["figures"]]
            return cls(**found)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise BenchmarkError(f"{path} holds no results of these benchmarks ({error})") from error


@contextmanager
def _unfinished(path: Path) -> Iterator[Path]:
    """A file beside `path`, to be moved there; gone afterwards. Raises BenchmarkError where there can be none."""
    unfinished = path.with_suffix(".unfinished")
    try:
        if path.exists() and not path.is_file():
            raise BenchmarkError(f"{path} is no file that figures can be written to")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            unfinished.touch()
            yield unfinished
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise BenchmarkError(f"{path} cannot be written: {error.strerror} ({error.filename})") from error


def digits(value: float) -> str:
    """Three digits, as many as a measurement is good for."""
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    places = max(2 - math.floor(math.log10(abs(value))), 0)
    return f"{value:,.{min(places, 4)}f}"


@dataclass(frozen=True)
class Pivot:
    """Figures of one unit: subjects one way, cases the other, of which there are fewer across."""

    unit: str
    across: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]

    @classmethod
    def all(cls, results: Results) -> list[Pivot]:
        """One a unit, in the order in which the figures came."""
        pivots = []
        for unit in dict.fromkeys(figure.unit for figure in results.figures):
            figures = results.of(unit)
            cases = tuple(dict.fromkeys(figure.case for figure in figures))
            subjects = dict.fromkeys(figure.subject for figure in figures)
            found = {(figure.subject, figure.case): str(figure) for figure in figures}
            down, across = (tuple(subjects), cases) if len(cases) <= len(subjects) else (cases, tuple(subjects))
            if down is cases:
                found = {(case, subject): shown for (subject, case), shown in found.items()}
            rows = tuple((name, tuple(found.get((name, other), "–") for other in across)) for name in down)
            pivots.append(cls(unit, across, rows))
        return pivots


def code_version() -> str:
    """The last commit that changed what is measured; `-modified` where the files differ from it."""
    try:
        log = subprocess.run(
            ["git", "log", "-1", "--format=%h", "--", *CODE], capture_output=True, text=True, check=True
        )
        clean = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", *CODE], capture_output=True).returncode == 0
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return (log.stdout.strip() or "unknown") + ("" if clean else MODIFIED)


Measure = Callable[[argparse.Namespace, Results, Console], None]


def arguments(
    description: str | None, repeats: int = 3, seconds: float = 2.0, turns: str = "by turns"
) -> argparse.ArgumentParser:
    """The options that every benchmark has; `turns` says how its repeats are spread."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("models/market1501-int8.onnx"))
    parser.add_argument("--repeats", type=as_count, default=repeats, help=f"{turns} (default {repeats})")
    parser.add_argument("--seconds", type=as_amount, default=seconds, help=f"of each measurement (default {seconds:g})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    parser.add_argument("--resume", action="store_true", help="do nothing where FILE has them for this host and code")
    return parser


def command(question: str, parser: argparse.ArgumentParser, measure: Measure, argv: Sequence[str] | None) -> int:
    """Runs a benchmark. Exit codes: 0 measured, or not to be measured here and said so; 2 not possible."""
    options, console = parser.parse_args(argv), Console()
    if options.resume and not options.json:
        parser.error("--resume needs --json FILE, which it looks into")
    settings = {name: str(value) for name, value in vars(options).items() if name not in UNSAID}
    results = Results(question, settings, host(), code_version())
    if options.resume and _done(options.json, results):
        console.print(f"{question}: {options.json} has it for this host, code and settings")
        return 0
    try:
        if options.json:
            with _unfinished(options.json):  # said before hours of measuring, not after them
                pass
        measure(options, results, console)
        results.complete = True
        show(results, console)
        if options.json:
            results.write(options.json)
    except (BenchmarkError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _done(path: Path, wanted: Results) -> bool:
    try:
        found = Results.read(path)
    except BenchmarkError:
        return False
    same = (found.host, found.code, found.settings) == (wanted.host, wanted.code, wanted.settings)
    return same and found.complete and not found.code.endswith(MODIFIED)


def show(results: Results, console: Console) -> None:
    """Every figure, and what did not run."""
    console.print(f"{results.question}: {', '.join(f'{name} {value}' for name, value in results.host.items())}")
    for pivot in Pivot.all(results):
        shown = Table(title=f"{results.question}, {pivot.unit}: median (least–most)")
        for heading in ("", *pivot.across):
            shown.add_column(heading, justify="right" if heading else "left")
        for name, cells in pivot.rows:
            shown.add_row(name, *cells)
        console.print(shown)
    for name, reason in results.not_run.items():
        console.print(f"not run: {name}: {reason}", markup=False)
    for note in results.notes:
        console.print(note, markup=False)


def peers_option(parser: argparse.ArgumentParser, names: Sequence[str]) -> argparse.ArgumentParser:
    """Adds `--peers`, the Python that has the peers, and `--only`."""
    parser.add_argument("--peers", type=_program, default=PEERS_PYTHON, help=f"their Python (default {PEERS_PYTHON})")
    parser.add_argument("--only", nargs="+", choices=names, default=list(names), help="of all that can be measured")
    return parser


def _program(text: str) -> Path:
    if not (Path(text).is_file() and os.access(text, os.X_OK)):
        raise argparse.ArgumentTypeError(f"{text} is no program; the Python of the peers' environment is wanted")
    return Path(text)


def python_of(options: argparse.Namespace, peer: bool) -> str:
    """The Python that runs a contender. Raises BenchmarkError where there is none with the peers."""
    if not peer:
        return sys.executable
    python: Path = options.peers
    if not python.is_file():
        raise BenchmarkError(f"the peers' environment, {python.parent.parent}, is not there; `make peers` makes it")
    return str(python.absolute())
