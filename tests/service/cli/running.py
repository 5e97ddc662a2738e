"""The command line, run in this process or in one of its own."""

from __future__ import annotations

import sys
from pathlib import Path

from typer.testing import CliRunner, Result

from service.cli import commands as cli

RESIGHT = [sys.executable, "-c", "from service.cli.commands import main; main()"]


def resight(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli.command_line(), [str(argument) for argument in arguments])
