"""A line that moves: where the epoch is, how fast, how long still, and the losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from training.loop.engine import Step


@contextmanager
def epoch_progress(
    console: Console | None, epoch: int, epochs: int, batches: int, pictures: int
) -> Iterator[Callable[[Step], None]]:
    """Show epoch `epoch` (from 0) of `epochs`, of so many `batches` of so many `pictures`; None shows nothing.

    Yields:
        what is to be called after every step.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[left]}"),
        TextColumn("{task.fields[losses]}"),
    )
    began = monotonic()
    with Progress(*columns, console=console, transient=True, disable=console is None) as bar:
        task = bar.add_task(f"epoch {epoch + 1}/{epochs}", total=batches, rate="", left="", losses="")

        def show(step: Step) -> None:
            done = bar.tasks[task].completed + 1
            seconds = (monotonic() - began) / done  # a batch
            left = seconds * (batches * (epochs - epoch) - done)
            bar.update(
                task,
                advance=1,
                rate=f"{pictures / seconds:.1f} img/s",
                left=f"run {timedelta(seconds=round(left))}",
                losses="  ".join(f"{name} {value:.3f}" for name, value in step.losses.items()),
            )

        yield show
