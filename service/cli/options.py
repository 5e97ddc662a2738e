"""What several commands take: paths, and how the answer is printed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.cli.items import Layout


def a_path(text: str) -> Path:
    """A file of the command line; an empty name would be the working folder."""
    if not text:
        raise typer.BadParameter("an empty name is no file.")
    return Path(text)


Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
LayoutOption = Annotated[
    Layout | None, typer.Option("--layout", help="Where the labels are written; found out when not given.")
]
