from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.service.cli.running import RESIGHT
from tests.serving import Served


@pytest.mark.parametrize("arguments", [["enrol"], ["enrol", "--json"], ["query"], ["query", "--json"], ["model"]])
@pytest.mark.parametrize("broken", ["full", "pipe", "closed"])
def test_a_stdout_that_cannot_be_written_is_one_sentence(
    service: Served, market: Path, arguments: list[str], broken: str
) -> None:
    probe = [] if arguments == ["model"] else [str(market / "0001_c1s1_000000_00.jpg")]
    command = [*RESIGHT, *arguments, *probe, "--url", service.url]
    reading, pipe = os.pipe()
    os.close(reading)
    shell = {"full": '"$@" > /dev/full', "pipe": f'"$@" >&{pipe}', "closed": '"$@" >&-'}[broken]
    ended = subprocess.run(
        ["bash", "-c", shell, "-", *command],
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
        pass_fds=[pipe],
    )
    os.close(pipe)
    assert ended.returncode == 1, ended.stderr
    reason = {"full": "No space left on device", "pipe": "Broken pipe", "closed": "it is closed"}[broken]
    assert ended.stderr.splitlines()[-1] == f"The answer cannot be written to stdout: {reason}."
    assert "Traceback" not in ended.stderr
    assert "Exception" not in ended.stderr
    assert service.runtime.gallery.crop_count == (arguments[0] == "enrol")


def test_a_help_page_that_cannot_be_written_is_one_sentence() -> None:
    with Path("/dev/full").open("wb") as full:
        command = [*RESIGHT, "query", "--help"]
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert ended.stderr == "The answer cannot be written to stdout: No space left on device.\n"


def test_a_locale_that_lacks_a_sign_gets_another_in_its_place() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [*RESIGHT, "--help"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "resight serve" in ended.stdout
