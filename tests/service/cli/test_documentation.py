"""docs/command-line.md names every command with every option, and none that is not there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from service.cli.commands import command_line
from service.cli.messages import INTERRUPTED, NOT_POSSIBLE, SOME_FAILED

PAGE = (Path(__file__).parents[3] / "docs" / "command-line.md").read_text()


def commands() -> Iterator[tuple[str, set[str]]]:
    """Every command as it is typed after `resight`, with its long options."""

    def below(name: str, command: object) -> Iterator[tuple[str, set[str]]]:
        inner = getattr(command, "commands", None)
        if inner is not None:
            for word, one in inner.items():
                yield from below(f"{name} {word}".strip(), one)
            return
        options = {
            option
            for parameter in getattr(command, "params")  # noqa: B009
            for option in (*parameter.opts, *parameter.secondary_opts)
            if option.startswith("--")
        }
        yield name, options - {"--help"}

    return below("", typer.main.get_command(command_line()))


COMMANDS = dict(commands())


def about(name: str) -> str:
    """What the page says about a command: its section, or its row where it has none."""
    first = name.split()[0]
    section = re.search(rf"^### resight {first}\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    if section is not None:
        return section[1]
    row = re.search(rf"^\| `resight {first}\b.*$", PAGE, re.MULTILINE)
    assert row is not None, f"docs/command-line.md does not name resight {first}"
    return row[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_documented(name: str) -> None:
    assert f"resight {name}" in PAGE
    said = set(re.findall(r"--[a-z0-9-]+", about(name)))
    assert COMMANDS[name] <= said


def test_no_option_is_documented_that_is_not_there() -> None:
    for first in {name.split()[0] for name in COMMANDS}:
        there = set().union(*(options for name, options in COMMANDS.items() if name.split()[0] == first))
        text = about(first)
        listed = re.findall(r"^Options.*?(?=\n\n|\Z)", text, re.MULTILINE | re.DOTALL) or [text]
        assert set(re.findall(r"`(--[a-z0-9-]+)`", "".join(listed))) <= there, first
    named = set(re.findall(r"^(?:### |\| `|    )resight ([a-z]+)", PAGE, re.MULTILINE))
    assert named == {name.split()[0] for name in COMMANDS}


def test_every_exit_code_is_documented() -> None:
    table = PAGE.partition("## Exit codes")[2].partition("\n## ")[0]
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
    assert codes == {0, SOME_FAILED, NOT_POSSIBLE, INTERRUPTED}


def test_every_check_of_the_doctor_is_documented() -> None:
    import service.cli.checks
    import service.cli.doctor
    import service.cli.gallerychecks

    modules = service.cli.checks, service.cli.gallerychecks, service.cli.doctor
    source = "".join(Path(str(module.__file__)).read_text() for module in modules)
    checks = set(re.findall(r'Check\(\s*"([a-z ]+)"', source)) | set(service.cli.checks.VARIANTS)
    rows = re.findall(r"^\| ([a-z ,]+) \|", about("doctor"), re.MULTILINE)
    assert checks == {name for row in rows for name in row.split(", ")} - {"check"}
