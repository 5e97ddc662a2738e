"""The command `resight`. At the top only what `resight --help` needs is imported: it must appear at once."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from errno import ENOSPC
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.connecting import DEFAULT_URL, KeyFile, Url, service
from service.cli.jobs import job_commands
from service.cli.keys import key_commands
from service.cli.maintain import maintain
from service.cli.messages import INTERRUPTED, SOME_FAILED, printing, say, stop, unwritable
from service.cli.optimize import optimize
from service.cli.output import OutputError, writing
from service.cli.sources import Item, Layout, SourceError, file_item, open_sources

if TYPE_CHECKING:
    from service.cli.bulk import Outcome
    from service.client import Resight
    from service.client.answers import Ranking

NAMED_MATCHES = 20  # as many as fit a screen: each name is a request of its own
PATIENT_RETRIES = 8  # about half a minute: enough for the service to be started again

HELP = """
Find the same person again across cameras.

Start the service, put crops of people into its gallery, and ask who somebody is:

- `resight serve`

- `resight enrol bounding_box_test.zip`

- `resight query probe.jpg --exclude-camera c1`

`resight COMMAND --help` explains a command. A running service describes its HTTP interface at /docs.
"""


def _path(text: str) -> Path:
    """A file of the command line; an empty name would be the working folder."""
    if not text:
        raise typer.BadParameter("an empty name is no file.")
    return Path(text)


Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def main() -> None:
    """Run the command line; the entry point of the console script."""
    try:
        command_line()()
    except OSError as error:
        if error.errno != ENOSPC:
            raise
        try:  # it was a page of --help, which typer prints
            with writing():
                raise
        except OutputError as broken:
            say(unwritable(broken))
            sys.exit(SOME_FAILED)


def command_line() -> typer.Typer:
    """The commands, ready to be called."""
    app = typer.Typer(
        name="resight",
        help=HELP,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
    )
    commands: tuple[Callable[..., None], ...] = (serve, enrol, query, model, maintain, optimize, *job_commands())
    for command in commands:
        app.command(command.__name__.rstrip("_"))(command)
    app.add_typer(key_commands())
    return app


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on. [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on. [default: 8000]")] = None,
    model: Annotated[Path | None, typer.Option(help="The model file. [default: models/market1501-int8.onnx]")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or tensorrt. [default: auto]")] = None,
    gallery: Annotated[str | None, typer.Option(help="Where the gallery is kept. [default: sqlite:///data]")] = None,
    index: Annotated[
        str | None,
        typer.Option(help="How it is searched: auto, exact, ivf, hnsw, compressed or cagra. [default: auto]"),
    ] = None,
    store_images: Annotated[
        str | None, typer.Option(help="What is kept: none, thumbnail or original. [default: thumbnail]")
    ] = None,
    match_distance: Annotated[float | None, typer.Option(help="Distance of a match. [default: from the model]")] = None,
    max_batch: Annotated[
        int | None, typer.Option(help="Images in one run of the model. [default: 16; 64 on a GPU]")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Of inference, and of decoding. [default: all cores]")] = None,
    queue_limit: Annotated[
        int | None, typer.Option(help="Images admitted at once. [default: 4 s of the measured rate]")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error. [default: info]")] = None,
    keys_file: Annotated[
        Path | None, typer.Option(help="The API keys; `resight keys` makes them. [default: nobody needs one]")
    ] = None,
    rate_limit: Annotated[int | None, typer.Option(help="Images a minute for each key. [default: no limit]")] = None,
    retention_days: Annotated[
        int | None, typer.Option(help="Erase crops that were enrolled longer ago. [default: never]")
    ] = None,
    milvus_token_file: Annotated[
        Path | None, typer.Option(help="Holds the token for a gallery in Milvus. [default: none]")
    ] = None,
    pictures: Annotated[
        str | None, typer.Option(help="s3://BUCKET/PREFIX, for a gallery in Milvus. [default: no pictures]")
    ] = None,
    s3_endpoint: Annotated[
        str | None, typer.Option(help="The store of the pictures. [default: https://s3.amazonaws.com]")
    ] = None,
    s3_credentials_file: Annotated[
        Path | None, typer.Option(help="Its keys, JSON with access_key and secret_key. [default: none]")
    ] = None,
    allow_anonymous: Annotated[
        bool | None, typer.Option("--allow-anonymous", help="Let others than this machine in, without keys.")
    ] = None,
) -> None:
    """Start the service.

    Every option may also be an environment variable: --port 9000 and RESIGHT_PORT=9000 say the same.
    """
    chosen = {name: value for name, value in locals().items() if value is not None}
    from service.cli.serving import run  # ONNX Runtime and FAISS come with it

    problem = run(chosen)
    if problem:
        stop(problem)


def enrol(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH", parser=_path, help="Folders, .zip files, .csv files or images.")
    ],
    identity: Annotated[str | None, typer.Option(help="Who is on the images, where nothing else says it.")] = None,
    camera: Annotated[str | None, typer.Option(help="Which camera took them, where nothing else says it.")] = None,
    layout: Annotated[
        Layout | None, typer.Option(help="Where the labels are written; found out when not given.")
    ] = None,
    url: Url = DEFAULT_URL,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Put crops of people into the gallery.

    PATH is a folder or zip with Market-1501 names (0002_c1s1_000451_03.jpg: identity 0002, camera c1; -1 is left
    out, 0000 gets no identity), a folder with one folder per identity (named by letters A-Z a-z, digits and . _ : -),
    a CSV with the columns path (relative to the CSV), identity, camera, captured_at (2026-05-01T12:00:00Z) and track,
    or an image.

    The same command run again goes on where it stopped: what is there already is not enrolled twice. The name of
    each file is kept in the crop's meta as `source`. Exit code: 0 all well, 1 some failed, 2 nothing could be done.
    """
    try:
        with open_sources(paths, layout=layout, identity=identity, camera=camera) as sources:
            for source in sources:
                say(source.describe())
            items = [item for source in sources for item in source.items]
            if not items:
                stop("There is nothing to enrol.")
            with service(url, key_file, PATIENT_RETRIES) as client:
                code = _enrol(client, items, as_json)
    except SourceError as error:
        stop(f"{error}.")
    raise typer.Exit(code)


def query(
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE", parser=_path, help="1 to 16 crops of one person."),
    ],
    top_k: Annotated[int, typer.Option(help="How many identities.", min=1, max=1000)] = 10,
    camera: Annotated[list[str] | None, typer.Option(help="Search this camera only; repeatable.")] = None,
    exclude_camera: Annotated[list[str] | None, typer.Option(help="Leave this camera out; repeatable.")] = None,
    url: Url = DEFAULT_URL,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Ask who in the gallery this is: identities ranked by distance, nearest first.

    Several images make one query. A distance lies between 0 and 1 and is that of an identity's nearest crop;
    support counts its crops that are near enough to be a match.
    """
    from service.cli.terminal import console, footer, ranking_table, verdict
    from service.client.answers import ResightError
    from service.client.calls import query_call

    probes = [_probe(path) for path in images]
    call = query_call(probes, top_k=top_k, cameras=camera or (), exclude_cameras=exclude_camera or ())
    with service(url, key_file) as client:
        try:
            response = client.fetch(call)
        except ResightError as error:
            if error.problem.index is None:
                raise
            stop(f"{images[error.problem.index]}: {error}", SOME_FAILED)
        ranking = client.read(call, response)
        names = {} if as_json else _source_names(client, ranking)
    with printing():
        if as_json:
            typer.echo(response.text)
            return
        out = console()
        out.print(verdict(ranking))
        if ranking.matches:
            out.print(ranking_table(ranking, names))
        out.print(footer(ranking))


def _probe(path: Path) -> bytes:
    try:
        return file_item(path).read()
    except SourceError as error:
        stop(f"{path}: {error}.")


def model(url: Url = DEFAULT_URL, key_file: KeyFile = None, as_json: Json = False) -> None:
    """Show which model serves, and the licence notice of its training data."""
    from service.cli.terminal import console, model_lines
    from service.client.calls import model_call

    call = model_call()
    with service(url, key_file) as client:
        response = client.fetch(call)
        served = client.read(call, response)
    with printing():
        if as_json:
            typer.echo(response.text)
            return
        for line in model_lines(served):
            console().print(line, soft_wrap=True)


def _source_names(client: Resight, ranking: Ranking) -> dict[str, str]:
    """The file that each of the first nearest crops was enrolled from, by crop_id, where `resight enrol` noted one."""
    from service.client.answers import ResightError

    names = {}
    for match in ranking.matches[:NAMED_MATCHES]:
        with suppress(ResightError):  # it may just have been deleted; the ranking is still what was asked for
            meta = client.crop(match.crop_id).meta or {}
            if isinstance(meta.get("source"), str):
                names[match.crop_id] = meta["source"]
    return names


def _enrol(client: Resight, items: Sequence[Item], as_json: bool) -> int:
    """Enrol the items, telling how it goes; the exit code."""
    from service.cli.bulk import enrol_all
    from service.cli.terminal import console, duration, progress
    from service.client.answers import ResightError

    tally: Counter[str] = Counter()
    started = monotonic()
    out = console(stderr=True)
    try:
        with progress(out, len(items)) as advance:
            for outcomes in enrol_all(client, items):
                tally.update(outcome.status for outcome in outcomes)
                if as_json:
                    with writing():
                        typer.echo("\n".join(json.dumps(_record(outcome)) for outcome in outcomes))
                for outcome in outcomes:
                    if outcome.reason:
                        out.print(f"{outcome.item.name}: {outcome.reason}", soft_wrap=True)
                advance(len(outcomes))
    except KeyboardInterrupt:
        say(_acknowledged("Stopped", tally, len(items)))
        return INTERRUPTED
    except OutputError as error:  # records that nobody gets are no reason to go on
        say(_acknowledged("Broken off", tally, len(items)))
        stop(unwritable(error), SOME_FAILED)
    except ResightError:
        say(_acknowledged("Broken off", tally, len(items)))
        raise
    counts = ", ".join(f"{tally[status]:,} {status}" for status in ("created", "duplicate", "updated", "failed"))
    summary = f"{len(items):,} crops in {duration(monotonic() - started)}: {counts}"
    if as_json:
        say(summary)
    else:
        with printing():
            typer.echo(summary)
    return SOME_FAILED if tally["failed"] else 0


def _acknowledged(ending: str, tally: Counter[str], total: int) -> str:
    enrolled = tally.total() - tally["failed"]
    return (
        f"{ending}: {enrolled:,} of {total:,} crops are acknowledged. "
        "The same command continues from there; what is enrolled is not enrolled twice."
    )


def _record(outcome: Outcome) -> dict[str, str | None]:
    return {
        "source": outcome.item.name,
        "status": outcome.status,
        "crop_id": outcome.crop_id,
        "reason": outcome.reason,
    }
