from __future__ import annotations

import signal
import socket
import subprocess
from pathlib import Path

import pytest

from benchmarks.interrupted import draw, enrol_interrupted, require_every_crop_once
from tests.service.cli.running import RESIGHT
from tests.serving import Served


@pytest.mark.slow
def test_enrolling_interrupted_five_times_ends_with_every_crop_once(service: Served, tmp_path: Path) -> None:
    draw(tmp_path / "crops", 2000)
    found = enrol_interrupted(tmp_path / "crops", service.url, times=5)
    assert len(found.acknowledged) == 5
    assert "0 updated, 0 failed" in found.summary
    require_every_crop_once(tmp_path / "crops", service.url)


def test_a_command_that_waits_for_an_answer_says_that_it_was_stopped() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        command = [*RESIGHT, "model", "--url", url]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as asking:
            connection, _ = silent.accept()
            with connection:
                asking.send_signal(signal.SIGINT)
                _, said = asking.communicate(timeout=60)
    assert asking.returncode == 130
    assert said == "Stopped.\n"
