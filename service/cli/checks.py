"""What `resight doctor` looks at on this machine: Python, packages, clock, limits, the port. Changes nothing."""

from __future__ import annotations

import errno
import importlib
import resource
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.settings import Settings

LEAST_PYTHON = (3, 11)
LEAST_FILES = 1024  # open files: a socket for each connection, and the gallery's own
EARLIEST = 1_767_225_600  # 2026-01-01, before which there was no release
INSTALL = "install one of them: pip install 'resight[cpu]', or 'resight[gpu]' for an NVIDIA card"
VARIANTS = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "faiss": ("faiss-cpu", "faiss-gpu-cuvs", "faiss-gpu"),
}


class State(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Check:
    """What was looked at, how it is, what was found, and one sentence what to do where it is not ok."""

    name: str
    state: State
    found: str
    advice: str = ""


def machine() -> Iterator[Check]:
    """What does not depend on any setting."""
    yield python()
    for module, packages in VARIANTS.items():
        yield variant(module, packages)
    yield clock(time.time())
    yield open_files(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def python(found: tuple[int, ...] = sys.version_info[:3]) -> Check:
    """The interpreter is new enough."""
    said = ".".join(map(str, found))
    if found >= LEAST_PYTHON:
        return Check("python", State.OK, f"{said}, {sys.prefix}")
    return Check("python", State.FAIL, said, "Resight needs Python 3.11 or newer: make a virtual environment with one.")


def variant(module: str, packages: tuple[str, ...]) -> Check:
    """One package brings the module, not two that overwrite each other, and it loads."""
    there = {package: found for package in packages if (found := _version(package)) is not None}
    said = ", ".join(f"{package} {found}" for package, found in there.items()) or "not installed"
    if not there:
        return Check(module, State.FAIL, said, f"{' or '.join(packages[:2])} is missing; {INSTALL}.")
    if len(there) > 1:
        return Check(
            module,
            State.FAIL,
            said,
            f"Both bring the module {module} and overwrite each other: keep an environment for each.",
        )
    try:
        importlib.import_module(module)
    except Exception as error:  # a library that it needs, or numpy's version
        return Check(module, State.FAIL, f"{said} does not load: {error}", f"{INSTALL[0].upper()}{INSTALL[1:]}, anew.")
    return Check(module, State.OK, said)


def clock(now: float) -> Check:
    """The clock is not far behind; retention and the times of crops rest on it."""
    said = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now >= EARLIEST:
        return Check("clock", State.OK, said)
    return Check("clock", State.FAIL, said, "The clock is wrong: set it, or let NTP do so, before you enrol.")


def open_files(limit: int) -> Check:
    """Enough connections may be open."""
    if limit == resource.RLIM_INFINITY or limit >= LEAST_FILES:
        return Check("open files", State.OK, "no limit" if limit == resource.RLIM_INFINITY else f"up to {limit:,}")
    return Check("open files", State.WARN, f"up to {limit:,}", f"Raise it to {LEAST_FILES:,} or more with `ulimit -n`.")


def port(settings: Settings) -> Check:
    """It is free, or Resight answers there."""
    from service.client import Resight
    from service.client.answers import ResightError

    place = f"{settings.host}:{settings.port}"
    if settings.port == 0 or (problem := _binding(settings.host, settings.port)) is None:
        return Check("port", State.OK, f"{place} is free")
    if problem.errno != errno.EADDRINUSE:
        return Check(
            "port",
            State.FAIL,
            f"{place}: {problem.strerror or problem}",
            "Choose another RESIGHT_HOST or _PORT.",
        )
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    try:
        with Resight(f"http://{f'[{host}]' if ':' in host else host}:{settings.port}", timeout=5, retries=0) as client:
            ready = client.ready()
    except (ResightError, ValueError):
        return Check(
            "port",
            State.FAIL,
            f"another program listens on {place}",
            "End it, or choose another RESIGHT_PORT (and the same in RESIGHT_URL for the commands).",
        )
    if ready.ready:
        return Check("port", State.OK, f"Resight answers at {place}")
    return Check("port", State.WARN, f"Resight answers at {place}, not ready: {ready.reason}", "Wait, or read its log.")


def _binding(host: str, number: int) -> OSError | None:
    """Why nobody can listen there, None where it is possible."""
    try:
        [(family, kind, protocol, _, address), *_] = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(1)
    except OSError as error:
        return error
    return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
