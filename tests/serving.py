"""The real service under a real server on a free port, for tests that talk HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import uvicorn

from service.api.runtime import Runtime
from service.app import create_app
from service.connections import Connection
from service.gallery.audit import Audit
from service.gallery.gallery import Gallery
from service.settings import Settings


@dataclass(frozen=True)
class Served:
    """A running service: its address, a client of it, and its inside for the injection of faults."""

    url: str
    client: httpx.Client
    runtime: Runtime

    @property
    def gallery(self) -> Gallery:
        """Its gallery, which is in a folder."""
        assert isinstance(self.runtime.gallery, Gallery)
        return self.runtime.gallery

    @property
    def audit(self) -> Audit:
        """Its audit log, which is in a folder."""
        assert isinstance(self.runtime.audit, Audit)
        return self.runtime.audit


@contextmanager
def serve(settings: Settings, patience: int = 5) -> Iterator[Served]:
    """Runs the service until the block ends, then `patience` seconds for requests; raises when it does not start."""
    app = create_app(settings)
    config = uvicorn.Config(
        app, port=0, http=Connection, log_config=None, access_log=False, ws="none", timeout_graceful_shutdown=patience
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + 30
        while not server.started:
            if not thread.is_alive() or time.monotonic() > deadline:
                raise RuntimeError("the service did not start; its log says why")
            time.sleep(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=url, timeout=30) as client:
            yield Served(url, client, app.state.runtime)
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive(), "the server did not end"
