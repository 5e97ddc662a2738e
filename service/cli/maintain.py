"""`resight maintain`: what waits for a person's decision in a gallery, and that decision."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.jobrunning import settings_of
from service.cli.messages import printing, say, stop
from service.cli.options import Json

if TYPE_CHECKING:
    from service.settings import Settings


def maintain(
    gallery: Annotated[
        str | None, typer.Option(help="Where the gallery is kept, as for serve. [default: sqlite:///data]")
    ] = None,
    retention_days: Annotated[int | None, typer.Option(help="As for serve. [default: RESIGHT_RETENTION_DAYS]")] = None,
    confirm: Annotated[bool, typer.Option("--confirm", help="Let the service erase what is too old now.")] = False,
    as_json: Json = False,
) -> None:
    """Show how many crops are past their retention; with --confirm, let go of them.

    The service erases such crops by itself, except when they are more than a fifth of the gallery: a clock that
    jumped ahead would make all of them too old. Of a gallery in Milvus this command does it, and what else there is
    to do for all replicas: run it now and then.
    """
    from service.gallery.records import GalleryError
    from service.gallery.retention import confirm_purge, past_retention

    settings = settings_of(gallery=gallery, retention_days=retention_days)
    days = settings.retention_days
    if settings.milvus_address is not None:
        _maintain_milvus(settings, confirm)
        return
    if days is None:
        stop("There is no retention to maintain: say --retention-days or RESIGHT_RETENTION_DAYS as the service has it.")
    try:
        found = past_retention(settings.gallery_folder, days)
        confirmed = confirm and found.old > 0
        if confirmed:
            confirm_purge(settings.gallery_folder, found)
    except GalleryError as error:
        stop(str(error))
    with printing():
        if as_json:
            typer.echo(json.dumps(asdict(found) | {"too_many": found.too_many, "confirmed": confirmed}, default=str))
            return
        typer.echo(f"{found.old} of {found.crops} crops were enrolled before {found.before:%Y-%m-%d %H:%M} UTC.")
        if confirmed:
            typer.echo("The service erases them within two minutes, or when it next runs.")
        elif confirm:
            typer.echo("There is nothing to confirm.")
        elif found.too_many:
            typer.echo("That is more than a fifth: if the clock and the days are right, say --confirm.")


def _maintain_milvus(settings: Settings, confirm: bool) -> None:
    """Erases what is past its retention, puts the list of identities right, lets Milvus compact. Audited on stdout."""
    from service.galleries import open_audit, open_existing
    from service.gallery.records import GalleryError
    from service.gallery_milvus.upkeep import compact, expire, past_retention, put_names_right

    try:
        with open_existing(settings) as opened:
            if settings.retention_days is not None:
                before = datetime.now(UTC) - timedelta(days=settings.retention_days)
                found = past_retention(opened.crops, before)
                say(f"{found.old} of {found.crops} crops were enrolled before {before:%Y-%m-%d %H:%M} UTC.")
                if found.too_many and not confirm:
                    say("That is more than a fifth: if the clock and the days are right, say --confirm.")
                else:
                    say(f"{expire(opened.crops, open_audit(settings, opened), before)} crops were erased.")
            names = put_names_right(opened.crops)
            say(f"The list of identities: {names.added} added, {names.removed} removed.")
            compact(opened.crops)
    except GalleryError as error:
        stop(str(error))
