"""A real Prometheus with the project's files scrapes a real service, and every expression finds something."""

from __future__ import annotations

import math
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path

import httpx
import pytest
import yaml
from PIL import Image

from tests.deploy import monitoring
from tests.deploy.monitoring import ALERTS, FOLDER, PROMETHEUS
from tests.drawn_crops import crop, encoded, uploads
from tests.eventually import until

SERVE = [sys.executable, "-c", "from service.cli.commands import main; main()", "serve", "--port", "0"]
QUEUE_LIMIT = 64
GREY = encoded(Image.new("RGB", (64, 128), (128, 128, 128)))  # the tiny model fails on it
VARIABLES = {"$__rate_interval": "1m", "$instance": ".*"}
UNIT_TESTS = Path(__file__).with_name("alerts.test.yml")


def tool(name: str) -> str:
    """The path of one of Prometheus's programs; skips where there is none."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed here (Debian: apt-get install prometheus)")
    return found


@contextmanager
def running(command: list[str], log: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that is ended with the block, in a hurry if need be."""
    with (
        log.open("wb") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=20)
            process.kill()


@contextmanager
def serving(model: Path, folder: Path) -> Iterator[str]:
    """The address of a `resight serve` whose gallery is `folder`/data and whose queue is soon full."""
    options = ["--model", str(model), "--gallery", f"sqlite:///{folder / 'data'}", "--device", "cpu"]
    log = folder / "service.log"
    with running([*SERVE, *options, "--queue-limit", str(QUEUE_LIMIT)], log) as process:
        assert process.stdout is not None
        announced = re.search(r"http://[\d.:]+\d", process.stdout.readline())
        assert announced is not None, log.read_text()
        yield announced[0]


@contextmanager
def scraping(program: str, target: str, folder: Path) -> Iterator[httpx.Client]:
    """A client of a Prometheus that has the project's files, but for the address and for the time between scrapes."""
    (job,) = PROMETHEUS["scrape_configs"]
    here = {"static_configs": [{"targets": [target]}], "dns_sd_configs": []}
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(FOLDER / name) for name in PROMETHEUS["rule_files"]],
        "scrape_configs": [{**job, **here}],
    }
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    options = [f"--config.file={file}", f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address={address}"]
    with running([program, *options], folder / "prometheus.log"), httpx.Client(base_url=f"http://{address}") as client:

        def ready() -> bool:
            with suppress(httpx.TransportError):
                return client.get("/-/ready").is_success
            return False

        until(ready, seconds=60)
        yield client


@contextmanager
def asked_all_the_time(url: str) -> Iterator[None]:
    """Requests of every kind, good and bad, and more at once than the queue takes, until the block ends."""
    over = threading.Event()
    full = uploads(*(crop(number % 64, number // 64) for number in range(QUEUE_LIMIT)))

    def ask() -> None:
        number = 0
        with httpx.Client(base_url=url, timeout=30) as client, ThreadPoolExecutor(4) as crowd:
            while not over.is_set():
                number += 1
                label = {"identity": f"p{number}", "camera": "c1"}
                client.post("/gallery", files=uploads(crop(number % 64, number)), data=label)
                client.post("/query", files=uploads(crop(1)))
                client.post("/query", files=uploads(b"no picture"))
                client.post("/query", files=uploads(GREY))
                client.get("/no/such/page")
                list(crowd.map(lambda _: client.post("/embed", files=full), range(4)))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(60)


def evaluated(prometheus: httpx.Client, expression: str) -> list[float]:
    """What Prometheus answers now; fails when it refuses."""
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    answer = prometheus.get("/api/v1/query", params={"query": expression}).json()
    assert answer["status"] == "success", (expression, answer)
    return [float(series["value"][1]) for series in answer["data"]["result"]]


def test_promtool_accepts_the_files() -> None:
    subprocess.run([tool("promtool"), "check", "config", str(FOLDER / "prometheus.yml")], check=True)


def test_alerts_fire_when_they_should_and_only_then() -> None:
    named = re.findall(r'alertname="(\w+)"', UNIT_TESTS.read_text(encoding="utf-8"))
    assert named == [alert["alert"] for alert in ALERTS]
    subprocess.run([tool("promtool"), "test", "rules", str(UNIT_TESTS)], check=True)


@pytest.mark.slow
def test_every_expression_finds_something_in_a_real_run(model_path: Path, tmp_path: Path) -> None:
    program = tool("prometheus")
    asked = dict(chain(monitoring.of_panels(), monitoring.of_alerts()))
    with serving(model_path, tmp_path) as url, scraping(program, url.removeprefix("http://"), tmp_path) as prometheus:
        with asked_all_the_time(url):
            until(lambda: not without_values(prometheus, asked), seconds=60)
        answered = evaluated(prometheus, 'count by (status) (resight_requests_total{route!="/metrics"})')
        assert len(answered) >= 6  # 200, 201, 404, 422, 429, 500
        (tmp_path / "data").rename(tmp_path / "moved")
        marks = dict(monitoring.of_annotations())
        until(lambda: not without_values(prometheus, marks), seconds=30)
        assert evaluated(prometheus, 'ALERTS{alertname="ResightGalleryTrouble", alertstate="firing"}') == [1]
        (tmp_path / "moved").rename(tmp_path / "data")


def without_values(prometheus: httpx.Client, asked: dict[str, str]) -> set[str]:
    """Those that found nothing yet, or nothing but what is no number."""
    return {where for where, text in asked.items() if not any(map(math.isfinite, evaluated(prometheus, text)))}
