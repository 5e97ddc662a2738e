"""A Docker engine and Compose, where they answer: how the tests of the images call them, and why they skip."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
BASE_IMAGE = os.environ.get("TEST_BASE_IMAGE", "python:3.11-slim-bookworm")  # what the image is built on
ANSWER_SECONDS, PULL_SECONDS, BUILD_SECONDS = 5, 120, 900

# An image of its own, a free port, a build that reaches a package index as this machine does, and less waiting.
OF_TESTS = """
services:
  resight:
    image: resight-test:cpu
    build: {network: host}
    ports: !override ["127.0.0.1::8000"]
    restart: "no"
    healthcheck: {interval: 1s}
"""


def said(command: Sequence[str], seconds: float, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command's end, stdout and stderr together; 127 when it is not there, 124 when it takes longer."""
    try:
        return subprocess.run(
            command,
            cwd=ROOT,
            env={**_without_settings(), **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )
    except FileNotFoundError:
        return subprocess.CompletedProcess(command, 127, f"there is no command {command[0]}")
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, f"no answer in {seconds:g} s")


def _without_settings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("RESIGHT_")}


def compose_command() -> list[str]:
    """`docker compose` or `docker-compose`; skips the test where neither is there, or is too old for `!reset`."""
    found = "there is neither `docker compose` nor `docker-compose` here"
    for command in (["docker", "compose"], ["docker-compose"]):
        answer = said([*command, "version", "--short"], ANSWER_SECONDS) if shutil.which(command[0]) else None
        if answer is not None and answer.returncode == 0:
            version = answer.stdout.strip().lstrip("v")
            if not version.startswith("1."):
                return command
            found = f"`{' '.join(command)}` is version {version}, which cannot read these files"
    pytest.skip(found)


def docker(*arguments: str, seconds: float = 60) -> str:
    """What `docker …` prints; fails the test where it fails."""
    return _output(said(["docker", *arguments], seconds))


def require_engine() -> None:
    """Skips the test where no engine answers at once, or the base image is not to be had."""
    answer = said(["docker", "version", "--format", "{{.Server.Version}}"], ANSWER_SECONDS)
    if answer.returncode:
        pytest.skip(f"no Docker engine answers: {_last_line(answer)}")
    if said(["docker", "image", "inspect", BASE_IMAGE], ANSWER_SECONDS).returncode == 0:
        return
    pulled = said(["docker", "pull", "--quiet", BASE_IMAGE], PULL_SECONDS)
    if pulled.returncode:
        pytest.skip(
            f"the base image {BASE_IMAGE} is not here and cannot be pulled ({_last_line(pulled)});"
            " TEST_BASE_IMAGE names another one, with Python 3.11 and venv"
        )


@dataclass(frozen=True)
class Compose:
    """Compose with some of our files, in a project of its own."""

    command: Sequence[str]
    files: Sequence[Path]
    project: str = "resight-test"
    environment: dict[str, str] = field(default_factory=dict)

    def end(self, *arguments: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """How `compose …` ends."""
        files = [part for file in self.files for part in ("-f", str(file))]
        whole = [*self.command, *files, "--project-name", self.project, *arguments]
        return said(whole, seconds, PYTHON_IMAGE=BASE_IMAGE, **self.environment)

    def __call__(self, *arguments: str, seconds: float = 120) -> str:
        """What `compose …` prints; fails the test where it fails."""
        return _output(self.end(*arguments, seconds=seconds))

    def config(self, *profiles: str) -> dict[str, Any]:
        """The whole of the files, as Compose understands them."""
        chosen = [f"--profile={profile}" for profile in profiles]
        model: dict[str, Any] = json.loads(self(*chosen, "config", "--format", "json"))
        return model


def files(*names: str) -> list[Path]:
    """The root's Compose file, then `deploy/compose.NAME.yml` for each name."""
    return [ROOT / "docker-compose.yml", *(ROOT / f"deploy/compose.{name}.yml" for name in names)]


def _output(ended: subprocess.CompletedProcess[str]) -> str:
    assert ended.returncode == 0, f"{' '.join(ended.args)}: {ended.stdout[-4000:]}"
    return ended.stdout.strip()


def _last_line(ended: subprocess.CompletedProcess[str]) -> str:
    return (ended.stdout.strip().splitlines() or [f"exit code {ended.returncode}"])[-1]
