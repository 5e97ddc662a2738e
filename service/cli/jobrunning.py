"""What the commands around a whole gallery share: their options, their progress, and how they end."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.messages import INTERRUPTED, printing, refusals, say, stop

if TYPE_CHECKING:
    from service.inference.engine import OnnxEngine
    from service.jobs.import_crops import NotImported
    from service.jobs.job import Progress
    from service.jobs.reembed import Lost
    from service.settings import Settings

NAMED_CROPS = 100

ModelFile = Annotated[
    Path | None, typer.Option("--model", help="The model file. [default: models/market1501-int8.onnx]")
]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or tensorrt. [default: auto]")]
Threads = Annotated[int | None, typer.Option(help="Threads of inference. [default: all cores]")]
Gallery = Annotated[str | None, typer.Option(help="Where the gallery is kept. [default: sqlite:///data]")]


@contextmanager
def job(doing: str, unit: str) -> Iterator[Progress]:
    """Shows progress on stderr; ends the command with one line when the job cannot be done."""
    from service.cli.terminal import console, job_progress
    from service.gallery.records import GalleryError
    from service.inference.engine import EngineError
    from service.inference.model import ModelError
    from service.jobs.job import JobError

    try:
        with job_progress(console(stderr=True), doing, unit) as progress:
            yield progress
    except (JobError, GalleryError, ModelError, EngineError) as error:
        stop(str(error))
    except KeyboardInterrupt:
        stop(
            f"Stopped while {doing}: nothing is changed by half; the same command starts or goes on again.", INTERRUPTED
        )


def settings_of(unset: Sequence[str] = (), **options: Any) -> Settings:
    """Settings with these options where they are not None; those named in `unset` are not taken from variables.

    A job listens on no address, and where the gallery is given as a folder, variables that a gallery in Milvus needs
    are not its own.
    """
    from pydantic import ValidationError

    from service.gallery_milvus.address import SCHEME
    from service.settings import FOR_MILVUS, LOOPBACK, Settings

    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if not given.get("gallery", SCHEME).startswith(SCHEME):
        unset = (*unset, *FOR_MILVUS)
    try:
        return Settings(**{"host": LOOPBACK, **dict.fromkeys(unset), **given})
    except ValidationError as error:
        stop(refusals(error))


def engine_of(chosen: Settings) -> OnnxEngine:
    from service.inference.loading import load_engine
    from service.inference.model import read_model

    return load_engine(
        read_model(chosen.model), chosen.device, chosen.effective_threads, chosen.max_batch, chosen.cache_folder
    )


def name_crops(lost: Sequence[Lost | NotImported]) -> None:
    for one in lost[:NAMED_CROPS]:
        say(f"{one.crop_id}: {one.reason}")
    if len(lost) > NAMED_CROPS:
        say(f"and {len(lost) - NAMED_CROPS:,} more")


def tell(as_json: bool, done: object, *lines: str) -> None:
    """What a job has done: its dataclass as JSON, for programs, or `lines`."""
    with printing():
        if as_json and is_dataclass(done) and not isinstance(done, type):
            typer.echo(json.dumps(asdict(done), default=str))
            return
        for line in lines:
            typer.echo(line)
