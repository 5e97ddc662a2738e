"""A service of our own to measure: `resight serve` in a process of its own, over a gallery of drawn crops."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
from numpy.typing import NDArray

from benchmarks.load import LoadError
from service.gallery.gallery import Gallery
from service.gallery.records import Labels, NewCrop
from service.inference.model import ModelInfo

CAMERAS = 6
CROPS_A_PERSON = 20
COSINE = 0.7  # of two crops of a person; of strangers 0 ± 1 / √D
CHUNK = 1000
START_SECONDS = 120.0


def fill_gallery(folder: Path, info: ModelInfo, crops: int) -> None:
    """Makes the gallery in `folder`: crops without pictures, around a centre a person, in six cameras."""
    random = np.random.default_rng(0)
    gallery = Gallery.open(folder, info.sha256, info.name, info.embedding_dim, None, None)
    try:
        for start in range(0, crops, CHUNK):
            numbers = range(start, min(start + CHUNK, crops))
            embeddings = _draw(random, numbers, info.embedding_dim)
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


def _draw(random: np.random.Generator, numbers: range, dim: int) -> NDArray[np.float32]:
    people = {number // CROPS_A_PERSON for number in numbers}
    centres = {person: np.random.default_rng(person).standard_normal(dim) for person in people}
    noise = random.standard_normal((len(numbers), dim))
    crops = COSINE**0.5 * np.stack([centres[number // CROPS_A_PERSON] for number in numbers])
    crops += (1 - COSINE) ** 0.5 * noise
    crops /= np.linalg.norm(crops, axis=1, keepdims=True)
    return np.asarray(crops, np.float32)


@contextmanager
def served(model: Path, gallery: Path) -> Iterator[str]:
    """The address of a service that is ready, with every setting at its default; raises LoadError."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    settings = {"RESIGHT_MODEL": str(model), "RESIGHT_GALLERY": f"sqlite:///{gallery}", "RESIGHT_PORT": str(port)}
    others = {name: value for name, value in os.environ.items() if not name.upper().startswith("RESIGHT_")}
    log = gallery.with_suffix(".log")
    with log.open("wb") as stderr:
        command = [str(Path(sys.executable).with_name("resight")), "serve"]
        process = subprocess.Popen(command, env=others | settings, stderr=stderr, stdout=subprocess.DEVNULL)
        try:
            _wait_until_ready(url, process, log)
            yield url
        finally:
            process.terminate()
            process.wait()


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    begun = time.perf_counter()
    while time.perf_counter() - begun < START_SECONDS and process.poll() is None:
        try:
            if httpx.get(f"{url}/readyz").status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.02)
    raise LoadError(f"the service did not start:\n{log.read_text()}")
