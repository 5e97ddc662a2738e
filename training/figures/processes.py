"""Jobs over several devices: one process a device at a time."""

from __future__ import annotations

import os
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import torch

from training.network.device import DeviceError

POLL_SECONDS = 0.2
VISIBLE = "CUDA_VISIBLE_DEVICES"

T = TypeVar("T")


class Process(Protocol):
    """What is used of a subprocess.Popen."""

    def poll(self) -> int | None: ...
    def terminate(self) -> None: ...
    def wait(self) -> int: ...


def visible_gpus(count: int, environment: Mapping[str, str]) -> tuple[str, ...]:
    """The first `count` GPUs, as CUDA_VISIBLE_DEVICES names each; of those that it already names, where it does.

    Raises:
        DeviceError: there are fewer.
    """
    named = [name.strip() for name in environment.get(VISIBLE, "").split(",") if name.strip()]
    there = torch.cuda.device_count()
    devices = named[:there] if named else [str(number) for number in range(there)]
    if len(devices) < count:
        raise DeviceError(f"--gpus {count}: PyTorch {torch.__version__} sees {len(devices)} CUDA devices here")
    return tuple(devices[:count])


def launch(command: Sequence[str], gpu: str, output: Path) -> Process:
    """Start a command that sees one GPU and adds what it prints to the file `output`."""
    with output.open("a", encoding="utf-8") as file:
        return subprocess.Popen(command, env={**os.environ, VISIBLE: gpu}, stdout=file, stderr=subprocess.STDOUT)


def spread(
    jobs: Sequence[T], devices: Sequence[str], start: Callable[[T, str], Process], ended: Callable[[T, int], None]
) -> None:
    """Run every job on the next device that is free; `ended` hears its exit code. Interrupted, none is left behind."""
    waiting = deque(jobs)
    running: dict[str, tuple[T, Process]] = {}
    try:
        while waiting or running:
            for device in devices:
                if device in running:
                    job, process = running[device]
                    if (code := process.poll()) is None:
                        continue
                    del running[device]
                    ended(job, code)
                if waiting:
                    job = waiting.popleft()
                    running[device] = (job, start(job, device))
            if running:
                time.sleep(POLL_SECONDS)
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.wait()
