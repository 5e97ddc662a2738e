"""What a command says besides its answer, and how it ends: one line on stderr, and an exit code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import typer

from service.cli.output import OutputError, writing

if TYPE_CHECKING:
    from pydantic import ValidationError

SOME_FAILED, NOT_POSSIBLE, INTERRUPTED = 1, 2, 130


@contextmanager
def printing() -> Iterator[None]:
    """Around what prints the answer: ends the command with one line when it cannot be written."""
    try:
        with writing():
            yield
    except OutputError as error:
        stop(unwritable(error), SOME_FAILED)


def unwritable(error: OutputError) -> str:
    """Why the answer did not come out, as a sentence."""
    return f"The answer cannot be written to stdout: {error}."


def say(line: str) -> None:
    """One line on stderr."""
    typer.echo(line, err=True)


def stop(line: str, code: int = NOT_POSSIBLE) -> NoReturn:
    """Ends the command with one line on stderr."""
    say(line)
    raise typer.Exit(code)


def refusals(error: ValidationError) -> str:
    """Why settings cannot be used, a line each: as they are called where they may come from, and what they were.

    What is before an address's `@` or behind its `?` stays unsaid: these lines end up in logs.
    """
    from service.settings import PREFIX

    lines = []
    for one in error.errors():
        message = one["msg"].removeprefix("Value error, ")
        if one["loc"]:  # otherwise it is about several, and names them
            name = str(one["loc"][0])
            places = f"{PREFIX}{name.upper()} / --{name.replace('_', '-')}"
            given = re.sub(r"^('\w*://|').*@", r"\1…@", repr(one["input"]))
            given = re.sub(r"\?.*(?=')", "?…", given)
            message = f"{places}: {message}, not {given}"
        lines.append(message)
    return "\n".join(lines)
