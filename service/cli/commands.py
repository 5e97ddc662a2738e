"""The command `resight`. At the top only what `resight --help` needs is imported: it must appear at once."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from errno import EACCES, ENAMETOOLONG, ENOSPC
from typing import Annotated

import typer

from service.cli.demo import demo
from service.cli.doctor import doctor
from service.cli.enrol import enrol
from service.cli.identities import identity_commands
from service.cli.jobs import backup, compact, export, restore
from service.cli.keys import key_commands
from service.cli.maintain import maintain
from service.cli.messages import INTERRUPTED, NOT_POSSIBLE, SOME_FAILED, printing, say, unwritable
from service.cli.migrate import migrate
from service.cli.modeljobs import calibrate, import_, reembed
from service.cli.optimize import optimize
from service.cli.output import OutputError, writing
from service.cli.query import model, query
from service.cli.serve import serve
from service.cli.watch import watch

Command = Callable[..., None]

HELP = """
Find the same person again across cameras.

Start the service, put crops of people into its gallery, and ask who somebody is:

- `resight serve`

- `resight enrol bounding_box_test.zip`

- `resight query probe.jpg --exclude-camera c1`

`resight demo` shows that with drawn people. `resight doctor` says what is missing where something does not work.

`resight COMMAND --help` explains a command, docs/command-line.md all of them. A running service describes its HTTP
interface at /docs. Commands that talk to a service find it at --url, or at RESIGHT_URL.
"""

PANELS: tuple[tuple[str, tuple[Command, ...]], ...] = (
    ("Start", (serve, doctor, demo)),
    ("People in the gallery", (enrol, query, watch, model)),
    ("The gallery as a whole", (backup, restore, export, import_, compact, maintain, migrate)),
    ("The model and its distances", (reembed, calibrate, optimize)),
)


def main() -> None:
    """Run the command line; the entry point of the console script."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # not every locale has a sign for every name
    try:
        command_line()()
    except KeyboardInterrupt:  # where a command does not end in its own words
        say("Stopped.")
        sys.exit(INTERRUPTED)
    except OSError as error:
        if error.errno in (EACCES, ENAMETOOLONG) and error.filename is not None:  # a path that cannot be looked at
            say(f"{error.filename} cannot be used: {error.strerror}.")
            sys.exit(NOT_POSSIBLE)
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
    app.callback()(_options)
    for panel, commands in PANELS:
        for command in commands:
            app.command(command.__name__.rstrip("_"), rich_help_panel=panel)(command)
    app.add_typer(identity_commands(), rich_help_panel="People in the gallery")
    app.add_typer(key_commands(), rich_help_panel="Start")
    return app


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        with printing():
            typer.echo(f"resight {version('resight')}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show which release this is.")
    ] = False,
) -> None:
    """Only what ends before any command."""
