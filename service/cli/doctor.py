"""`resight doctor`: what is wrong here, and what to do. It changes nothing, and shows no secret."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.checks import Check, State, machine, port
from service.cli.connecting import URL_VARIABLE
from service.cli.jobrunning import Device, Gallery, ModelFile, Threads
from service.cli.messages import INTERRUPTED, SOME_FAILED, printing, stop
from service.cli.options import Json

if TYPE_CHECKING:
    from service.settings import Settings

SECRET = re.compile(r"(?<=://)[^/@]*@")  # user and password in an address


def doctor(
    model: ModelFile = None,
    device: Device = None,
    gallery: Gallery = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. [default: 127.0.0.1]")] = None,
    port_number: Annotated[int | None, typer.Option("--port", help="Port to listen on. [default: 8000]")] = None,
    threads: Threads = None,
    keys_file: Annotated[Path | None, typer.Option(help="The API keys. [default: nobody needs one]")] = None,
    as_json: Json = False,
) -> None:
    """Check what `resight serve` needs here, with the same options and RESIGHT_* variables, and say what to do.

    Python, the packages, clock and limits, the settings and where each comes from, the model and where it really runs,
    the gallery, the port. Also while the service runs. Exit code: 0 all well or warnings only, 1 something fails.
    """
    given = {
        "model": model,
        "device": device,
        "gallery": gallery,
        "host": host,
        "port": port_number,
        "threads": threads,
        "keys_file": keys_file,
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    try:
        checks, values = examine(chosen)
    except KeyboardInterrupt:
        stop("Stopped.", INTERRUPTED)
    failed = any(check.state is State.FAIL for check in checks)
    with printing():
        if as_json:
            typer.echo(json.dumps({"ok": not failed, "checks": [asdict(one) for one in checks], "settings": values}))
        else:
            _show(checks, values)
    if failed:
        raise typer.Exit(SOME_FAILED)


def examine(chosen: dict[str, Any]) -> tuple[list[Check], list[dict[str, str]]]:
    """All checks, and every setting with its value and where that comes from."""
    checks = list(machine())
    settings, problems, wrong = _settings(chosen)
    checks += problems
    if settings is None:
        return checks, []
    runs = not any(check.state is State.FAIL for check in checks if check.name in ("onnxruntime", "faiss"))
    checks += _of_service(settings) if runs else [port(settings)]
    return checks, list(_values(settings, chosen, wrong))


def _settings(chosen: dict[str, Any]) -> tuple[Settings | None, list[Check], set[str]]:
    """The settings, the names of those that are wrong and have their defaults; None where no one by itself is wrong."""
    from pydantic import ValidationError

    from service.cli.messages import refusals
    from service.settings import Settings

    try:
        settings = Settings(**chosen)
    except ValidationError as error:
        wrong = {str(one["loc"][0]) if one["loc"] else "" for one in error.errors()}
        instead, advice = None, "Correct or unset it; README.md, `Settings`, lists all of them."
        if wrong <= set(Settings.model_fields):
            with suppress(ValidationError):
                instead = Settings(**chosen | {name: Settings.model_fields[name].get_default() for name in wrong})
                advice = f"{advice} The other checks take its default."
        lines = refusals(error).splitlines()
        return instead, [Check("settings", State.FAIL, SECRET.sub("…@", line), advice) for line in lines], wrong
    return settings, [Check("settings", State.OK, "every RESIGHT_* variable is known and has a possible value")], set()


def _of_service(settings: Settings) -> Iterator[Check]:
    from service.cli.gallerychecks import gallery, keys, model_and_provider

    file, checks = model_and_provider(settings)
    yield from checks
    yield from gallery(settings, None if file is None else file.info.sha256)
    yield from keys(settings)
    yield port(settings)


def _values(settings: Settings, chosen: dict[str, Any], wrong: set[str]) -> Iterator[dict[str, str]]:
    """Settings by the names of their variables; of those that the commands read, the key is not shown."""
    from service.client.credentials import VARIABLE
    from service.settings import PREFIX

    variables = {name.upper() for name, value in os.environ.items() if value}
    for name in type(settings).model_fields:
        variable, value = f"{PREFIX}{name.upper()}", getattr(settings, name)
        source = "option" if name in chosen else "environment" if variable in variables else "default"
        source = "default" if name in wrong else source
        yield {"name": variable, "value": "-" if value is None else SECRET.sub("…@", str(value)), "source": source}
    for variable, shown in ((URL_VARIABLE, True), (VARIABLE, False)):
        found = os.environ.get(variable, "")
        said = SECRET.sub("…@", found) if shown else "set, not shown"
        yield {"name": variable, "value": said if found else "-", "source": "environment" if found else "default"}


def _show(checks: list[Check], values: list[dict[str, str]]) -> None:
    from service.cli.tabular import check_table, setting_table
    from service.cli.terminal import console

    out = console()
    out.print(check_table(checks))
    for check in checks:
        if check.advice:
            out.print(f"\n{check.state} {check.name}: {check.advice}", soft_wrap=True)
    if values:
        out.print()
        out.print(setting_table(values))
