"""One process that serves: the address, uvicorn around the application, and why it did not start."""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import uvicorn
from pydantic import ValidationError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.app import create_app
from service.cli.memory import keep_steady, settle
from service.cli.messages import refusals
from service.cli.output import OutputError, writing
from service.connections import Connection
from service.gallery.records import GalleryError
from service.inference.engine import EngineError
from service.inference.model import ModelError
from service.keys import KeysError
from service.settings import Settings

logger = logging.getLogger(__name__)

SHUTDOWN_SECONDS = 10  # for the requests in flight, after which they are cut off; half of what an end may take
KEEP_ALIVE_SECONDS = 15  # longer than clients keep an idle connection (httpx 5 s), so that they close it first


def run(options: Mapping[str, Any]) -> str | None:
    """Serve until a signal ends it. `options` are settings by name and win over RESIGHT_* variables.

    Returns None after an orderly end, and a sentence for the user when it could not start.
    """
    try:
        settings = Settings(**options)
    except ValidationError as error:
        return refusals(error)
    try:
        listener = _bind(settings.host, settings.port)
    except OSError as error:
        return f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}. Choose another --host or --port."
    keep_steady()
    app = _Startup(create_app(settings))
    config = uvicorn.Config(
        app,
        lifespan="on",
        http=Connection,
        workers=1,  # one process owns the engine and the gallery
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    with listener, suppress(KeyboardInterrupt, SystemExit):  # how uvicorn ends: by Ctrl-C, or not started
        _Server(config, settings.host).run(sockets=[listener])
    return app.failure


class _Startup:
    """Keeps the reason why the application did not start, in place of uvicorn's traceback."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.failure: str | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self.app(scope, receive, send)
            return

        async def without_traceback(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed":
                message = {**message, "message": ""}
            await send(message)

        try:
            await self.app(scope, receive, without_traceback)
        except (ModelError, EngineError, GalleryError, KeysError, OSError) as error:
            self.failure = f"Cannot start: {error}"
        except Exception as error:
            logger.exception("the start failed")
            self.failure = f"Cannot start, for a reason that was not foreseen: {error!r}; the log says more."


class _Server(uvicorn.Server):
    """Tells a person where it listens, once it does."""

    def __init__(self, config: uvicorn.Config, host: str) -> None:
        super().__init__(config)
        self.host = f"[{host}]" if ":" in host else host

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        settle()
        if self.started and sockets:
            url = f"http://{self.host}:{sockets[0].getsockname()[1]}"
            try:
                with writing():
                    print(f"Resight answers at {url}, its documentation is at {url}/docs. Ctrl-C ends it.")
            except OutputError as error:  # no reason not to serve
                logger.warning("stdout cannot be written: %s", error, extra={"url": url})


def _bind(host: str, port: int) -> socket.socket:
    """A socket that is bound but does not listen: an occupied port is told before the model is loaded."""
    [(family, kind, protocol, _, address), *_] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener
