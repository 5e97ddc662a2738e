"""`resight enrol` stopped by Ctrl-C at random moments and started again: `python -m benchmarks.interrupted`.

Drawn crops, each of its own, are enrolled into a service with a tiny model. At the end the gallery must hold every
one of them once, with the labels of its name.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from benchmarks.hostile_memory import served
from service.client import Resight
from tests.drawn_crops import encoded, person

ENROL = [sys.executable, "-c", "from service.cli.commands import main; main()", "enrol"]
STOPPED = 130
LONGEST_WAIT = 0.2  # seconds, so that it is stopped anywhere in a request


class NotEveryCropOnce(Exception):
    """The gallery differs from the folder; the message says how."""


@dataclass(frozen=True)
class Found:
    """How many crops every stopped run had acknowledged, and what the last one said."""

    acknowledged: tuple[int, ...]
    summary: str


def draw(folder: Path, crops: int) -> None:
    """Files in Market-1501 names, no two of them alike."""
    folder.mkdir()
    for number in range(crops):
        image = person(number % 64)
        image.putpixel((0, 0), (number & 255, number >> 8 & 255, number >> 16))
        (folder / f"{number // 8 + 1:04}_c{number % 8 + 1}s1_{number:06}_00.png").write_bytes(encoded(image))


def enrol_interrupted(folder: Path, url: str, times: int, seed: int = 0) -> Found:
    """Starts the same command again and again; stops it `times` times and then lets it end."""
    chance = random.Random(seed)
    crops = sum(1 for _ in folder.iterdir())
    command = [*ENROL, str(folder), "--url", url, "--json"]
    acknowledged: list[int] = []
    for left in range(times, 0, -1):
        done = max(acknowledged, default=0)
        acknowledged.append(_stopped(command, done + chance.randint(1, (crops - done) // (left + 1)), chance))
    last = subprocess.run(command, capture_output=True, text=True, check=False)
    if last.returncode != 0:
        raise NotEveryCropOnce(f"the last run ended with {last.returncode}: {last.stderr}")
    return Found(tuple(acknowledged), last.stderr.splitlines()[-1])


def _stopped(command: list[str], lines: int, chance: random.Random) -> int:
    """Stops the command some time after so many crops are acknowledged; how many it says there are then.

    One that had ended before is run again, and stopped at its first crops.
    """
    said = _interrupted(command, lines, chance.uniform(0, LONGEST_WAIT)) or _interrupted(command, 1, 0)
    if said is None:
        raise NotEveryCropOnce("there are too few crops: every run ends before it can be stopped")
    return int(said.split()[1].replace(",", ""))


def _interrupted(command: list[str], lines: int, wait: float) -> str | None:
    """What the command says when it is stopped; None where that came after its end."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(lines):
            process.stdout.readline()
        time.sleep(wait)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    said = errors.splitlines()[-1]
    if process.returncode == STOPPED and said.startswith("Stopped: "):
        return said
    if process.returncode in (0, STOPPED, -signal.SIGINT) and " crops in " in said:
        return None
    raise NotEveryCropOnce(f"a stopped run ended with {process.returncode}: {errors}")


def require_every_crop_once(folder: Path, url: str) -> None:
    """Raises NotEveryCropOnce."""
    expected = {}
    for path in folder.iterdir():
        crop_id = str(uuid.UUID(bytes=hashlib.sha256(path.read_bytes()).digest()[:16]))
        identity, camera, *_ = path.name.split("_")
        expected[crop_id] = (identity, camera.partition("s")[0], path.name)
    with Resight(url) as client:
        there = [(one.crop_id, (one.identity, one.camera, (one.meta or {}).get("source"))) for one in client.crops()]
    if len(there) != len(expected) or dict(there) != expected:
        raise NotEveryCropOnce(f"{len(there):,} crops are in the gallery, {len(expected):,} in the folder")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--crops", type=int, default=20_000)
    arguments.add_argument("--times", type=int, default=5)
    arguments.add_argument("--seed", type=int, default=0)
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory() as place, served() as (client, _):
        folder = Path(place, "crops")
        draw(folder, chosen.crops)
        started = time.monotonic()
        url = str(client.base_url)
        found = enrol_interrupted(folder, url, chosen.times, chosen.seed)
        require_every_crop_once(folder, url)
        print(f"stopped at {', '.join(f'{count:,}' for count in found.acknowledged)}; then: {found.summary}")
        print(f"every one of {chosen.crops:,} crops is there once; {time.monotonic() - started:.0f} s in all")


if __name__ == "__main__":
    main()
