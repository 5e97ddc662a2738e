"""`resight keys`: make, show and revoke the keys of a service, in its key file."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from service.cli.messages import SOME_FAILED, printing, say, stop, unwritable
from service.cli.output import OutputError, writing
from service.keys import KeyScope, KeysError, create_key, read_keys, revoke_key

HELP = """
Make, show and revoke the keys that a service asks for.

The key file holds their hashes only; `resight serve --keys-file FILE` reads it, and again whenever it changes.
"""

KeyFile = Annotated[
    Path, typer.Option("--file", envvar="RESIGHT_KEYS_FILE", metavar="FILE", help="The key file of the service.")
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Who has the key, as the audit log calls them.")]
Scope = Annotated[
    KeyScope, typer.Option(help="query reads and asks, enrol also adds and corrects, admin does everything.")
]


def key_commands() -> typer.Typer:
    """The commands below `resight keys`."""
    app = typer.Typer(name="keys", help=HELP, no_args_is_help=True, rich_markup_mode="markdown")
    app.command(name="create")(create)
    app.command(name="list")(show)
    app.command(name="revoke")(revoke)
    return app


def create(name: Name, scope: Scope, file: KeyFile) -> None:
    """Make a key. It is printed now, and never again; the file is made when it is missing."""
    try:
        token = create_key(file, name, scope)
    except KeysError as error:
        stop(f"{error}.")
    try:
        with writing():
            typer.echo(token)
    except OutputError as error:  # a key that nobody has read must not open anything
        revoke_key(file, name)
        stop(unwritable(error), SOME_FAILED)
    say(f"The key {name}, of scope {scope}, stands in no file: keep it now. RESIGHT_API_KEY hands it to the commands.")


def show(
    file: KeyFile, as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False
) -> None:
    """Show who has which key; the keys themselves are nowhere."""
    from service.cli.tabular import key_table
    from service.cli.terminal import console

    try:
        keys = read_keys(file)
    except KeysError as error:
        stop(f"{error}.")
    with printing():
        if as_json:
            typer.echo(json.dumps([{k: v for k, v in asdict(key).items() if k != "sha256"} for key in keys]))
        elif keys:
            console().print(key_table(keys))
        else:
            typer.echo("There are no keys.")


def revoke(name: Name, file: KeyFile) -> None:
    """Take a key back. A running service refuses it from then on, and ends its sessions."""
    try:
        revoke_key(file, name)
    except KeysError as error:
        stop(f"{error}.")
    say(f"The key {name} is revoked.")
