"""`resight query` and `resight model`: who is this, and which model says so."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.connecting import DEFAULT_URL, KeyFile, Url, service
from service.cli.files import file_item
from service.cli.items import SourceError
from service.cli.messages import SOME_FAILED, printing, stop
from service.cli.options import Json, a_path

if TYPE_CHECKING:
    from service.client import Resight
    from service.client.answers import Ranking

NAMED_MATCHES = 20  # as many as fit a screen: each name is a request of its own


def query(
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE", parser=a_path, help="1 to 16 crops of one person."),
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
    from service.cli.tabular import ranking_table
    from service.cli.terminal import console, footer, verdict
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
