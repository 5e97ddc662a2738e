"""How fast crops are enrolled over HTTP, every row durable: `python -m benchmarks.enrolment --crops 20000`.

Distinct crops go into an empty gallery, 32 a request by four clients, and as one tar archive, beside the raw engine on
the same file. Then the service is killed, and what the gallery holds is counted.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import signal
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
from rich.console import Console

from benchmarks.engines import raw_engine
from benchmarks.load import LoadError, once, pictures, request_of
from benchmarks.options import as_count
from benchmarks.results import Results, arguments, command
from benchmarks.served import served
from benchmarks.service import BATCHES, OURS, RATE, RAW
from benchmarks.worker import Worker
from service.gallery.gallery import Gallery
from service.inference.model import ModelInfo, read_model
from service.settings import available_cores

BULK, CLIENTS = 32, 4
FORMS, ARCHIVE = "32 a request, 4 clients", "one tar archive"
SHARE, DURABLE = "share of the raw rate", "% there after kill -9"
ANSWER_SECONDS = 3600.0


def post_forms(url: str, drawn: Sequence[bytes]) -> float:
    """Seconds until every crop is acknowledged. Raises LoadError where one is not."""
    parts = [drawn[start : start + BULK] for start in range(0, len(drawn), BULK)]
    requests = [request_of("/gallery", *part) for part in parts]
    begun = time.perf_counter()
    replies = asyncio.run(once(url, requests, CLIENTS))
    seconds = time.perf_counter() - begun
    if {reply.status for reply in replies} != {201}:
        raise LoadError(f"enrolled with {sorted({reply.status for reply in replies})}, not only with 201")
    return seconds


def post_archive(url: str, drawn: Sequence[bytes]) -> float:
    """The same, sent as one archive."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for number, picture in enumerate(drawn):
            member = tarfile.TarInfo(f"{number // 20 + 1:04}_c{number % 6 + 1}s1_{number:06}_00.jpg")
            member.size = len(picture)
            archive.addfile(member, io.BytesIO(picture))
    headers = {"Content-Type": "application/x-tar"}
    begun = time.perf_counter()
    answer = httpx.post(f"{url}/gallery", content=file.getvalue(), headers=headers, timeout=ANSWER_SECONDS)
    seconds = time.perf_counter() - begun
    created = answer.text.count('"status":"created"')
    if created < len(drawn):
        raise LoadError(f"of {len(drawn)} members {created} were created: {answer.text.splitlines()[-1][:300]}")
    return seconds


WAYS: dict[str, Callable[[str, Sequence[bytes]], float]] = {FORMS: post_forms, ARCHIVE: post_archive}


def measure(options: argparse.Namespace, results: Results, console: Console) -> None:
    """The raw engine before and after each way; their mean is what it is compared with."""
    model, info = options.model.resolve(), read_model(options.model).info
    drawn = pictures(options.crops)
    with raw_engine(model, available_cores()) as raw:
        for repeat in range(options.repeats):
            for way, post in WAYS.items():
                console.print(f"round {repeat + 1} of {options.repeats}: {way}")
                before = _raw_rate(raw, options.seconds)
                rate, there = _enrol(model, info, drawn, post)
                around = statistics.mean((before, _raw_rate(raw, options.seconds)))
                results.add(OURS, way, RATE, rate)
                results.add(RAW, way, RATE, around)
                results.add(OURS, way, SHARE, rate / around)
                results.add(OURS, way, DURABLE, 100 * there)


def _raw_rate(raw: Worker, seconds: float) -> float:
    return max(batch / float(statistics.median(raw.ask(batch=batch, seconds=seconds / 2))) for batch in BATCHES)


def _enrol(
    model: Path, info: ModelInfo, drawn: Sequence[bytes], post: Callable[[str, Sequence[bytes]], float]
) -> tuple[float, float]:
    """Crops a second, and the share of them that are there after the service was killed."""
    with tempfile.TemporaryDirectory() as folder:
        gallery = Path(folder) / "gallery"
        with served(model, gallery) as server:
            seconds = post(server.url, drawn)
            os.killpg(server.process.pid, signal.SIGKILL)
            server.process.wait()
        opened = Gallery.open(gallery, info.sha256, info.name, info.embedding_dim, None, None)
        try:
            return len(drawn) / seconds, opened.crop_count / len(drawn)
        finally:
            opened.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 measured, 2 not possible."""
    parser = arguments(__doc__, repeats=1)
    parser.add_argument("--crops", type=as_count, default=20_000)
    return command("enrolment", parser, measure, argv)


if __name__ == "__main__":
    sys.exit(main())
