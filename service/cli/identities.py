"""`resight identities`: who is in the gallery, and what a person decides about them."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.connecting import DEFAULT_URL, KeyFile, Url, service
from service.cli.items import count
from service.cli.messages import SOME_FAILED, printing, say, stop
from service.cli.options import Json

if TYPE_CHECKING:
    from service.client import Resight
    from service.client.decisions import Identity

HELP = """
Show, rename, merge and erase the people in the gallery.

What is merged or erased cannot be told apart or brought back: both ask first, and want --yes where nobody can answer.
"""
MISSING = 404

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="An identity, as `resight identities list` shows it.")]


def identity_commands() -> typer.Typer:
    """The commands below `resight identities`."""
    app = typer.Typer(name="identities", help=HELP, no_args_is_help=True, rich_markup_mode="markdown")
    app.command(name="list")(list_all)
    for command in (show, rename, merge, erase):
        app.command()(command)
    return app


def list_all(url: Url = DEFAULT_URL, key_file: KeyFile = None, as_json: Json = False) -> None:
    """Show everybody: how many crops, which cameras saw them, first and last time. With --json one line each."""
    from service.cli.tabular import identity_table
    from service.cli.terminal import console

    with service(url, key_file) as client, printing():
        found = client.identities()
        if as_json:
            for one in found:
                typer.echo(_json(one))
            return
        everybody = list(found)
        if everybody:
            console().print(identity_table(everybody))
        else:
            typer.echo("Nobody in the gallery has a name; crops get theirs from `resight enrol`.")


def show(name: Name, url: Url = DEFAULT_URL, key_file: KeyFile = None, as_json: Json = False) -> None:
    """Show one identity and all its crops."""
    from service.cli.tabular import crop_table, identity_table
    from service.cli.terminal import console

    with service(url, key_file) as client:
        found = _known(client, name)
        crops = list(client.crops(identity=name))
    with printing():
        if as_json:
            typer.echo(_json(found, {"crops": [asdict(one) for one in crops]}))
            return
        console().print(identity_table([found]))
        typer.echo()
        console().print(crop_table(crops))


def rename(
    name: Name,
    new: Annotated[str, typer.Argument(metavar="NEW", help="A name that nobody has yet.")],
    url: Url = DEFAULT_URL,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Give an identity another name, which nobody has yet: `merge` makes two into one."""
    with service(url, key_file) as client:
        _known(client, name)
        if _find(client, new) is not None:
            stop(f"{new} is somebody already: choose another name, or say `resight identities merge {name} {new}`.")
        done = client.rename(name, new)
    with printing():
        said = f"{name} is {done.identity} now, with {count(done.moved, 'crop')}"
        typer.echo(_json(done) if as_json else said)


def merge(
    names: Annotated[list[str], typer.Argument(metavar="NAME… INTO", help="Two or more; the last one stays.")],
    yes: Yes = False,
    url: Url = DEFAULT_URL,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Make several identities one, under the name that is given last."""
    *others, into = names
    if not others or into in others or len(set(others)) < len(others):
        stop("Name two or more different identities; the last one is the name that stays.")
    with service(url, key_file) as client:
        found = [_known(client, one) for one in names]
        crops = count(sum(one.crops for one in found[:-1]), "crop")
        _ask(f"Merge {', '.join(others)} ({crops}) into {into}?", yes)
        moved = 0
        for one in others:  # each for good, also when the next one cannot be merged
            done = client.rename(one, into)
            moved += done.moved
            said = f"{one} is {into} now: {count(done.moved, 'crop')} moved"
            if as_json:
                say(said)
            else:
                with printing():
                    typer.echo(said)
    if as_json:
        with printing():
            typer.echo(json.dumps({"identity": into, "merged": others, "moved": moved}))


def erase(
    name: Name, yes: Yes = False, url: Url = DEFAULT_URL, key_file: KeyFile = None, as_json: Json = False
) -> None:
    """Erase all crops of an identity for good, and print the receipt."""
    with service(url, key_file) as client:
        found = _known(client, name)
        _ask(f"Erase {name} for good, with {count(found.crops, 'crop')}?", yes)
        receipt = client.erase(identity=name)
    with printing():
        if as_json:
            typer.echo(_json(receipt))
            return
        erased = count(receipt.crops, "crop")
        typer.echo(f"{erased} of {name} erased: receipt {receipt.id} of {receipt.erased_at:%F %T} UTC")
        if not receipt.wal_truncated:
            typer.echo("A reader, such as a backup that is running, still holds the database's log; it goes with that.")


def _find(client: Resight, name: str) -> Identity | None:
    from service.client.answers import ResightError

    try:
        return client.identity(name)
    except ResightError as error:
        if error.status != MISSING:
            raise
        return None


def _known(client: Resight, name: str) -> Identity:
    found = _find(client, name)
    if found is None:
        stop(f"There is no identity {name!r}; `resight identities list` shows all of them.", SOME_FAILED)
    return found


def _ask(question: str, yes: bool) -> None:
    """Ends the command unless a person says yes."""
    if yes:
        return
    if not sys.stdin.isatty():
        stop(f"{question} Nobody can answer here: say --yes.")
    if not typer.confirm(question, err=True):
        say("Nothing is changed.")
        raise typer.Exit(SOME_FAILED)


def _json(answer: Any, more: dict[str, object] | None = None) -> str:
    return json.dumps(asdict(answer) | (more or {}), default=_text)


def _text(value: object) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
