"""`resight optimize`: what a GPU runs, made and checked ahead of time."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from service.cli.messages import INTERRUPTED, SOME_FAILED, printing, say, stop
from service.cli.options import Json

EXAMPLES = Path("examples/crops")


def optimize(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The model file to derive from.")],
    output: Annotated[Path, typer.Option("--output", help="The file to make.")],
    crops: Annotated[
        Path, typer.Option(help="A folder with crops of people, on which the two files are compared.")
    ] = EXAMPLES,
    threads: Annotated[int | None, typer.Option(help="Threads of inference. [default: all cores]")] = None,
    as_json: Json = False,
) -> None:
    """Derive the fp16 file that a GPU runs from an int8 or fp32 one, and check that it embeds alike.

    The service does the same by itself when it starts on a GPU. The file keeps its source's name and identity, so
    that galleries stay as they are. Exit code: 0 it is made, 1 it embeds otherwise and is not made, 2 not possible.
    """
    from service.cli.terminal import console, job_progress
    from service.inference.engine import EngineError
    from service.inference.model import ModelError
    from service.jobs.job import JobError
    from service.jobs.optimize import optimize as derive_and_check
    from service.settings import MOST_THREADS, available_cores

    if threads is not None and not 1 <= threads <= MOST_THREADS:
        stop(f"--threads must be 1 to {MOST_THREADS}, not {threads}.")
    try:
        with job_progress(console(stderr=True), "comparing", "batches") as progress:
            derived, found = derive_and_check(model, output, crops, threads or available_cores(), progress)
    except (JobError, ModelError, EngineError) as error:
        stop(str(error))
    except KeyboardInterrupt:
        stop("Stopped: nothing was written.", INTERRUPTED)
    lines = [
        f"{found.crops:,} crops: cosine {found.cosine_median:.4f} at the median, {found.cosine_least:.4f} at least"
        f" ({found.needed_cosine:g} needed); the nearest crop is the same for {found.nearest:.1%}"
        f" ({found.needed_nearest:.0%} needed)"
    ]
    if found.passed:
        lines.append(f"passed: {output} is {derived.info.name} (sha256 {derived.info.sha256[:12]}…) in fp16")
    with printing():
        typer.echo(json.dumps(asdict(found) | {"passed": found.passed}) if as_json else "\n".join(lines))
    if not found.passed:
        say(f"failed: {output} was not written.")
        raise typer.Exit(SOME_FAILED)
