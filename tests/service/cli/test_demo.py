from __future__ import annotations

import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from service.cli import demo
from service.client import Resight
from tests.drawn_crops import crop
from tests.service.cli.running import RESIGHT, resight
from tests.serving import Served


@pytest.fixture(autouse=True)
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The pages that a browser would show."""
    pages: list[str] = []

    def note(url: str) -> bool:
        pages.append(url)
        return True

    monkeypatch.setattr("webbrowser.open", note)
    return pages


def test_a_service_that_answers_is_used(service: Served, market: Path, opened: list[str]) -> None:
    for _ in range(2):  # the second time it holds these crops already
        result = resight("demo", "--crops", market, "--url", service.url)
        assert result.exit_code == 0, result.output
        assert f"using the service at {service.url}" in result.stderr
        assert result.stdout.startswith("7 crops enrolled. Who is on 0003_c2s1_000001_00.jpg")
        assert re.search(r"^ +1 +0003 ", result.stdout, re.MULTILINE)
    assert opened == [f"{service.url}/"] * 2
    assert resight("demo", "--crops", market, "--url", service.url, "--no-browser").exit_code == 0
    assert len(opened) == 2


def test_drawn_people_do_not_get_among_real_ones(
    service: Served, market: Path, model_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "anna.png").write_bytes(crop(60))
    resight("enrol", tmp_path / "anna.png", "--identity", "anna", "--url", service.url)
    said = _demo_until_it_waits("--crops", market, "--model", model_path, "--url", service.url)
    assert f"the gallery at {service.url} has other people in it" in said
    with Resight(service.url) as client:
        assert [one.identity for one in client.identities()] == ["anna"]


def _demo_until_it_waits(*options: str | Path, end: int = signal.SIGINT) -> str:
    """Runs the demo in a process of its own, with a service of its own, and ends it as Ctrl-C does, or with `end`; what
    it said."""
    command = [*RESIGHT, "demo", "--no-browser", *map(str, options)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if "until Ctrl-C" in line:
                break
        process.send_signal(end)
        rest, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert errors.endswith("The demo is over.\n")
    url = re.search(r"The console: (\S+)/\n", rest)
    assert url is not None
    assert re.search(r"^ +1 +0003 ", rest, re.MULTILINE)
    deadline = time.monotonic() + 10
    while resight("model", "--url", url[1]).exit_code == 0:  # its service has ended with it
        assert time.monotonic() < deadline
    return "".join(said)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_where_nothing_answers_one_is_started(market: Path, model_path: Path, end: int) -> None:
    _demo_until_it_waits("--crops", market, "--model", model_path, "--url", "http://127.0.0.1:1", end=end)


def test_what_cannot_be_shown_is_told(tmp_path: Path, market: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = ["--url", "http://127.0.0.1:1", "--no-browser"]
    unstarted = resight("demo", "--crops", market, "--model", tmp_path / "gone.onnx", *nowhere)
    assert unstarted.exit_code == 2
    assert "No service could be started." in unstarted.stderr
    assert "gone.onnx" in unstarted.stderr
    (tmp_path / "empty").mkdir()
    assert "There are no crops in" in resight("demo", "--crops", tmp_path / "empty", *nowhere).stderr
    assert "does not exist" in resight("demo", "--crops", tmp_path / "gone", *nowhere).stderr
    monkeypatch.setattr(demo, "CHECKOUT", tmp_path)
    monkeypatch.chdir(tmp_path)
    uninstalled = resight("demo", *nowhere)
    assert uninstalled.exit_code == 2
    assert "run this in a checkout" in uninstalled.stderr
