from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from training.figures import processes
from training.figures.processes import launch, spread, visible_gpus
from training.network.device import DeviceError


class Fake:
    """A process that ends with `code` after `polls` looks at it."""

    def __init__(self, code: int, polls: int) -> None:
        self.code, self.left = code, polls
        self.stopped: list[str] = []

    def poll(self) -> int | None:
        self.left -= 1
        return None if self.left >= 0 else self.code

    def terminate(self) -> None:
        self.stopped.append("terminate")

    def wait(self) -> int:
        self.stopped.append("wait")
        return self.code


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "POLL_SECONDS", 0)


def test_every_job_runs_once_and_a_device_has_one_at_a_time() -> None:
    busy: dict[str, str] = {}
    codes: dict[str, int] = {}
    devices: dict[str, str] = {}

    def start(job: str, device: str) -> Fake:
        assert device not in busy
        busy[device] = devices[job] = device
        return Fake(code=len(job), polls=2 * len(job))

    def ended(job: str, code: int) -> None:
        del busy[devices[job]]
        codes[job] = code

    jobs = ["a", "bbbb", "cc", "d", "eee"]
    spread(jobs, ["0", "3"], start, ended)
    assert codes == {job: len(job) for job in jobs}
    assert set(devices.values()) == {"0", "3"}


def test_a_process_sees_its_gpu_and_its_output_is_kept(tmp_path: Path) -> None:
    output = tmp_path / "run.log"
    output.write_text("earlier\n")
    script = "import os, sys; print(os.environ['CUDA_VISIBLE_DEVICES'], file=sys.stderr); sys.exit(3)"
    assert launch([sys.executable, "-c", script], "7", output).wait() == 3
    assert output.read_text() == "earlier\n7\n"


def test_interrupted_no_process_is_left() -> None:
    started: list[Fake] = []

    def start(job: int, device: str) -> Fake:
        if job == 2:
            raise KeyboardInterrupt
        started.append(Fake(0, polls=1000 if device == "0" else 0))
        return started[-1]

    with pytest.raises(KeyboardInterrupt):
        spread([0, 1, 2], ["0", "1"], start, lambda job, code: None)
    assert started[0].stopped == ["terminate", "wait"]
    assert started[1].stopped == []


@pytest.mark.parametrize(("named", "expected"), [("", ("0", "1")), ("5, 2,7", ("5", "2"))])
def test_gpus_are_those_that_may_be_seen(
    named: str, expected: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert visible_gpus(2, {"CUDA_VISIBLE_DEVICES": named}) == expected
    assert visible_gpus(0, {}) == ()


def test_more_gpus_than_there_are_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(DeviceError, match=r"--gpus 2: .* sees 1 CUDA"):
        visible_gpus(2, {})
