"""Servers to measure, each in processes of its own: `resight serve` over a gallery of drawn crops, and its peers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.drawn import CROPS_A_PERSON, draw_gallery
from benchmarks.load import LoadError
from benchmarks.worker import ROOT, resident_bytes
from service.gallery.gallery import Gallery
from service.gallery.records import Labels, NewCrop
from service.inference.model import ModelInfo

CAMERAS = 6
START_SECONDS = 120.0


def fill_gallery(folder: Path, info: ModelInfo, crops: int) -> None:
    """Makes the gallery in `folder`: crops without pictures, around a centre a person, in six cameras."""
    gallery = Gallery.open(folder, info.sha256, info.name, info.embedding_dim, None, None)
    try:
        for numbers, embeddings in draw_gallery(crops, info.embedding_dim):
            gallery.enrol(
                [
                    NewCrop(str(uuid.UUID(int=number)), embedding, labels=_labels(number))
                    for number, embedding in zip(numbers, embeddings, strict=True)
                ]
            )
    finally:
        gallery.close()


def _labels(number: int) -> Labels:
    return Labels(identity=f"{number // CROPS_A_PERSON:06}", camera=f"c{number % CAMERAS + 1}")


@dataclass(frozen=True)
class Server:
    """One that runs: its address, and the process that leads its own group."""

    url: str
    process: subprocess.Popen[bytes]

    @property
    def memory(self) -> int:
        """Resident bytes of the process and of all that it started."""
        return sum(resident_bytes(pid) for pid in [self.process.pid, *_below(self.process.pid)])


def _below(pid: int) -> list[int]:
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found, new = list[int](), [pid]
    while new:
        new = [child for child, parent in parents.items() if parent in new]
        found += new
    return found


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def running(
    command: Sequence[str], port: int, health: str, log: Path, env: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """A server for the time of a block, once `health` answers 200; raises LoadError when it does not."""
    others = {name: value for name, value in os.environ.items() if not name.upper().startswith("RESIGHT_")}
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=others | dict(env or {}),
            stderr=stderr,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # so that what it starts ends with it
        )
        server = Server(f"http://127.0.0.1:{port}", process)
        try:
            _wait_until_ready(server.url + health, process, log)
            yield server
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(START_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def served(model: Path, gallery: Path, settings: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Our service with every setting at its default but these, by the setting's name; raises LoadError."""
    port = free_port()
    chosen = {"MODEL": str(model), "GALLERY": f"sqlite:///{gallery}", "PORT": str(port), **(settings or {})}
    command = [str(Path(sys.executable).with_name("resight")), "serve"]
    env = {f"RESIGHT_{name}": value for name, value in chosen.items()}
    with running(command, port, "/readyz", gallery.with_suffix(".log"), env) as server:
        yield server


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    begun = time.perf_counter()
    while time.perf_counter() - begun < START_SECONDS and process.poll() is None:
        try:
            if httpx.get(url).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.02)
    raise LoadError(f"the server did not start:\n{log.read_text()[-2000:]}")
