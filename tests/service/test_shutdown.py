"""SIGTERM in the middle of an enrolment: what was acknowledged is there after the restart."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from service.client import Resight, ResightError
from service.settings import Settings
from tests.drawn_crops import encoded, person
from tests.serving import serve

SERVE = [sys.executable, "-c", "from service.cli.commands import main; main()", "serve", "--port", "0"]


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

    options = ["--model", str(model_path), "--gallery", f"sqlite:///{tmp_path / 'data'}", "--device", "cpu"]
    log = tmp_path / "log"
    with (
        log.open("wb") as errors,
        subprocess.Popen([*SERVE, *options], stdout=subprocess.PIPE, stderr=errors, text=True) as served,
    ):
        try:
            assert served.stdout is not None
            announced = re.search(r"http://[\d.:]+\d", served.stdout.readline())
            assert announced is not None, log.read_text()
            workers = [threading.Thread(target=enrol, args=(announced[0], number)) for number in range(3)]
            for worker in workers:
                worker.start()
            assert some.wait(30)
        finally:
            served.send_signal(signal.SIGTERM)
        for worker in workers:
            worker.join(60)
        served.communicate(timeout=60)
    assert served.returncode == -signal.SIGTERM  # uvicorn hands the signal on, after an orderly end
    assert '"message": "stopped"' in log.read_text()
    assert "Traceback" not in log.read_text()
    with serve(make_settings()) as again, Resight(again.url) as client:
        stored = {crop.crop_id for crop in client.crops()}
    assert len(acknowledged) >= 20
    assert acknowledged <= stored
