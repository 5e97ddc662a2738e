"""SIGTERM in the middle of enrolments: what was acknowledged is there after the restart; the end comes in time."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.client import Resight, ResightError
from service.settings import Settings
from tests.drawn_crops import encoded, person
from tests.raw_http import PART, head, opened
from tests.serving import serve

SERVE = [sys.executable, "-c", "from service.cli.commands import main; main()", "serve", "--port", "0"]
END_SECONDS = 20  # what is promised


@contextmanager
def ended_by_sigterm(model_path: Path, folder: Path) -> Iterator[str]:
    """A service as a process of its own, by its address; SIGTERM when the block ends, then an orderly end in time."""
    options = ["--model", str(model_path), "--gallery", f"sqlite:///{folder / 'data'}", "--device", "cpu"]
    log = folder / "log"
    with (
        log.open("wb") as errors,
        subprocess.Popen([*SERVE, *options], stdout=subprocess.PIPE, stderr=errors, text=True) as served,
    ):
        try:
            assert served.stdout is not None
            announced = re.search(r"http://[\d.:]+\d", served.stdout.readline())
            assert announced is not None, log.read_text()
            yield announced[0]
        finally:
            served.send_signal(signal.SIGTERM)
            try:
                served.communicate(timeout=END_SECONDS)
            finally:
                served.kill()
    assert served.returncode == -signal.SIGTERM  # uvicorn hands the signal on, after an orderly end
    assert '"message": "stopped"' in log.read_text()


def test_what_was_acknowledged_before_sigterm_is_there_after_the_restart(
    make_settings: Callable[..., Settings], model_path: Path, tmp_path: Path
) -> None:
    acknowledged: set[str] = set()
    some = threading.Event()

    def enrol(url: str, worker: int) -> None:
        with Resight(url, retries=0) as client:
            for number in range(1000):
                crops = [encoded(person(number, view, (64 + worker, 128 + number))) for view in range(2)]
                try:
                    results = client.enrol(crops).results
                except ResightError:
                    return
                acknowledged.update(str(result.crop_id) for result in results)
                if len(acknowledged) >= 20:
                    some.set()

    with ended_by_sigterm(model_path, tmp_path) as url:
        workers = [threading.Thread(target=enrol, args=(url, number)) for number in range(3)]
        for worker in workers:
            worker.start()
        assert some.wait(30)
    for worker in workers:
        worker.join(60)
    assert "Traceback" not in (tmp_path / "log").read_text()
    with serve(make_settings()) as again, Resight(again.url) as client:
        stored = {crop.crop_id for crop in client.crops()}
    assert len(acknowledged) >= 20
    assert acknowledged <= stored


@pytest.mark.slow
def test_a_client_that_sends_no_more_does_not_hold_up_the_end(model_path: Path, tmp_path: Path) -> None:
    with ended_by_sigterm(model_path, tmp_path) as url:
        stuck = opened(url)
        stuck.sendall(head("/gallery", length=100_000) + PART)
        with Resight(url) as client:
            assert client.model().name == "tiny-colours"
    stuck.close()
