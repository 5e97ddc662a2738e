"""How the commands reach a running service: its address, the key, and what is said when it cannot be used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.messages import INTERRUPTED, NOT_POSSIBLE, SOME_FAILED, stop

if TYPE_CHECKING:
    from service.client import Resight
    from service.client.answers import ResightError

DEFAULT_URL = "http://127.0.0.1:8000"
UNAUTHORIZED = 401

URL_VARIABLE = "RESIGHT_URL"
Url = Annotated[
    str, typer.Option("--url", metavar="URL", envvar=URL_VARIABLE, help="Where the service listens.", show_envvar=True)
]
KeyFile = Annotated[
    Path | None,
    typer.Option("--key-file", metavar="FILE", help="A file with your API key; RESIGHT_API_KEY may hold it instead."),
]


@contextmanager
def service(url: str, key_file: Path | None, retries: int = 2) -> Iterator[Resight]:
    """A client of the service at `url`; ends the command with one line when it cannot be used."""
    try:
        from service.client.answers import NotResight, ResightError, Unreachable  # slow enough to be interrupted

        with client_at(url, key_file, retries) as client:
            readiness = client.ready()  # asked once: nothing is waited for where nothing listens
            if not readiness.ready:
                stop(f"The service at {url} is not ready: {readiness.reason}")
            yield client
    except KeyboardInterrupt:  # where a command does not say what is done
        stop("Stopped.", INTERRUPTED)
    except (Unreachable, NotResight) as error:
        stop(explained(error, url))
    except ResightError as error:
        stop(explained(error, url), SOME_FAILED if error.status else NOT_POSSIBLE)


def client_at(url: str, key_file: Path | None, retries: int = 2) -> Resight:
    """A client that has not asked anything yet; ends the command where there can be no service, or no key."""
    from service.client import Resight

    key = _key(key_file)
    try:
        return Resight(url, key=key, retries=retries)
    except ValueError as error:
        stop(f"--url: {error}.")


def explained(error: ResightError, url: str) -> str:
    """Why the service cannot be used, and what to do."""
    from service.client.answers import NotResight, Unreachable

    if isinstance(error, Unreachable):
        return f"Nothing answers at {url}: start the service with `resight serve` or name it with --url."
    if isinstance(error, NotResight):
        return f"{url} answers, but it is not a Resight service."
    hint = " Set RESIGHT_API_KEY, or say --key-file." if error.status == UNAUTHORIZED else ""
    return f"{error}{hint}"


def _key(file: Path | None) -> str | None:
    """The key of the environment, or of a file; never one of the command line, which others on the machine can see."""
    from service.client.credentials import api_key

    try:
        return api_key(None if file is None else file.read_text(encoding="ascii"))
    except OSError as error:
        stop(f"--key-file: {file} cannot be read: {error.strerror}.")
    except ValueError as error:  # among them UnicodeDecodeError, which would repeat what stands there
        reason = "it holds no key; copy the key again" if isinstance(error, UnicodeDecodeError) else error
        stop(f"{reason}." if file is None else f"--key-file: {file}: {reason}.")
