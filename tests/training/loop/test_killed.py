"""SIGKILL, which no handler sees, in the middle of an epoch; then the same command again."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.training.loop.tiny import TINY, log_of, same, steps_of, weights_of
from training.loop.runlog import LOG

COMMAND = [sys.executable, "-m", "training.train", "--preset", "smoke", "--device", "cpu", "--no-export"]
EPOCHS = 24  # enough that the run is not over before it is killed


def command(drawn: Path, run: Path) -> list[str]:
    settings = [part for setting in (*TINY, f"epochs={EPOCHS}") for part in ("--set", setting)]
    return [*COMMAND, "--data", str(drawn), "--run", str(run), *settings]


@pytest.mark.slow
def test_a_killed_run_continues_to_the_bit(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # of both runs: to the bit with the same number only
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(drawn, whole), check=True, capture_output=True)
    log = killed / LOG
    with subprocess.Popen(command(drawn, killed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not (log.is_file() and log.read_bytes().count(b"\n") > 1):
            time.sleep(0.005)
        process.kill()
    assert process.returncode == -9
    done = len(log.read_bytes().splitlines())
    assert 1 < done < EPOCHS

    subprocess.run(command(drawn, killed), check=True, capture_output=True)
    assert log_of(killed) == log_of(whole)
    assert steps_of(killed) == steps_of(whole)
    assert same(weights_of(killed), weights_of(whole))
