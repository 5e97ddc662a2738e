"""What the commands show: progress, rankings and the model, on a terminal and in a pipe."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from service.cli.items import count
from service.client.answers import Ranking, ServedModel

PIPE_WIDTH = 200  # columns where there is no terminal to ask: nothing that a program reads is cut short
PLAIN_LINES = 20  # at most so many progress lines in a run without a terminal
LEAST_STEP = 100  # crops between two of them

MODEL_LINES = ("name", "sha256", "architecture", "precision", "provider", "training_data", "protocol")


def console(*, stderr: bool = False) -> Console:
    """A console for stdout or stderr as they are now; text is printed as it is, never read as mark-up."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPE_WIDTH
    return _Console(file=stream, width=width, markup=False, highlight=False, emoji=False)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Rich would end the process without a word."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


@contextmanager
def progress(
    out: Console, total: int, doing: str = "enrolling", unit: str = "crops"
) -> Iterator[Callable[[int], None]]:
    """Yields what to call with the number of crops, or another `unit`, just done: it moves a bar, or prints lines."""
    if not out.is_terminal:
        yield _plain_progress(out, total, unit)
        return
    columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=out) as bar:
        task = bar.add_task(doing, total=total)
        yield lambda number: bar.advance(task, number)


@contextmanager
def job_progress(out: Console, doing: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Yields what a job calls with how much is done and how much that is in all, which it is the first to know."""
    with ExitStack() as stack:
        advance: Callable[[int], None] | None = None
        told = 0

        def report(done: int, total: int) -> None:
            nonlocal advance, told
            if advance is None:
                advance = stack.enter_context(progress(out, total, doing, unit))
            advance(done - told)
            told = done

        yield report


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.1f}/s" if task.speed else "")


def _plain_progress(out: Console, total: int, unit: str) -> Callable[[int], None]:
    """A line for each `step` done; the rate is that since the line before, for duplicates go much faster."""
    step = max(LEAST_STEP, total // PLAIN_LINES)
    done = told = 0
    told_at = time.monotonic()

    def advance(number: int) -> None:
        nonlocal done, told, told_at
        done += number
        if done - told < step or done == total:
            return
        now = time.monotonic()
        rate = (done - told) / max(now - told_at, 1e-3)
        told, told_at = done, now
        left = duration((total - done) / rate)
        out.print(f"{done:,} of {total:,} {unit} ({100 * done // total} %), {rate:,.1f}/s, {left} left")

    return advance


def duration(seconds: float) -> str:
    """Seconds in words: 1.2 s, 12 s, 3 min 05 s, 1 h 02 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def verdict(ranking: Ranking) -> str:
    """The verdict as one sentence."""
    nearest = ranking.matches[0] if ranking.matches else None
    person = "a crop without identity" if nearest is None or nearest.identity is None else nearest.identity
    match ranking.verdict:
        case "match":
            return f"match: {person}"
        case "ambiguous":
            return f"ambiguous: {person} is near enough, but the next one is hardly farther"
        case "unknown" if nearest is None:
            return "unknown: nothing in the gallery passes these filters"
        case "unknown":
            return "unknown: nobody in the gallery is near enough"
        case "empty_gallery":
            return "the gallery is empty; fill it with `resight enrol PATH`"
        case None:
            return "no verdict: the model carries no measured error rates; RESIGHT_MATCH_DISTANCE sets a distance"
        case other:
            return other


def footer(ranking: Ranking) -> str:
    """What was searched, how, and how long it took."""
    how = "exactly" if ranking.exact else "approximately"
    took = sum(ranking.timings_ms.values())
    return f"{count(ranking.searched, 'crop')} searched {how} in {took:,.1f} ms by {ranking.model.name}"


def model_lines(model: ServedModel) -> Iterator[str]:
    """What serves, line by line; the licence notice last, by itself."""
    for name in MODEL_LINES:
        if name in model.details:
            yield f"{name.replace('_', ' '):<14} {model.details[name]}"
    yield ""
    yield model.licence_notice
