"""`resight enrol`: crops of people into the gallery, all there are or what is still missing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.connecting import DEFAULT_URL, KeyFile, Url, service
from service.cli.items import Item, SourceError, count
from service.cli.messages import INTERRUPTED, SOME_FAILED, printing, say, stop, unwritable
from service.cli.options import Json, LayoutOption, a_path
from service.cli.output import OutputError, writing
from service.cli.sources import open_sources

if TYPE_CHECKING:
    from service.cli.bulk import Outcome
    from service.client import Resight

KEY_REFUSED = (401, 403)
PATIENT_RETRIES = 8  # about half a minute: enough for the service to be started again


def enrol(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH", parser=a_path, help="Folders, .zip files, .csv files or images.")
    ],
    identity: Annotated[str | None, typer.Option(help="Who is on the images, where nothing else says it.")] = None,
    camera: Annotated[str | None, typer.Option(help="Which camera took them, where nothing else says it.")] = None,
    layout: LayoutOption = None,
    url: Url = DEFAULT_URL,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Put crops of people into the gallery.

    PATH is a folder or zip with Market-1501 names (0002_c1s1_000451_03.jpg: identity 0002, camera c1; -1 is left
    out, 0000 gets no identity), a folder with one folder per identity (named by letters A-Z a-z, digits and . _ : -),
    where such a name tells the camera, a CSV with the columns path (relative to the CSV), identity, camera,
    captured_at (2026-05-01T12:00:00Z) and track, or an image, which may have a Market-1501 name, too; for images
    --identity and --camera win over that.

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
                        typer.echo("\n".join(json.dumps(record(outcome)) for outcome in outcomes))
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
    except ResightError as error:
        say(_acknowledged("Broken off", tally, len(items), goes_on=error.status not in KEY_REFUSED))
        raise
    counts = ", ".join(f"{tally[status]:,} {status}" for status in ("created", "duplicate", "updated", "failed"))
    summary = f"{count(len(items), 'crop')} in {duration(monotonic() - started)}: {counts}"
    if as_json:
        say(summary)
    else:
        with printing():
            typer.echo(summary)
    return SOME_FAILED if tally["failed"] else 0


def _acknowledged(ending: str, tally: Counter[str], total: int, goes_on: bool = True) -> str:
    enrolled = tally.total() - tally["failed"]
    said = f"{ending}: {enrolled:,} of {total:,} crops are acknowledged."
    again = " The same command continues from there; what is enrolled is not enrolled twice."
    return said + again if goes_on else said


def record(outcome: Outcome) -> dict[str, str | None]:
    """What became of one item, for JSON."""
    return {
        "source": outcome.item.name,
        "status": outcome.status,
        "crop_id": outcome.crop_id,
        "reason": outcome.reason,
    }
