from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path

import pytest

from service.cli import bulk, connecting
from service.cli.bulk import Outcome
from service.cli.commands import command_line
from service.cli.items import Item
from service.client import DEFAULT_URL, Resight
from service.client.answers import Crop
from tests.drawn_crops import crop
from tests.service.cli.running import RESIGHT, resight
from tests.serving import Served


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port at which nothing answers, held so that nothing else can come to answer there."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield unused.getsockname()[1]


def test_enrol_then_query_by_hand(service: Served, market: Path) -> None:
    enrolled = resight("enrol", market, "--url", service.url)
    assert enrolled.exit_code == 0
    assert "reading 7 crops, Market-1501 names, from" in enrolled.stderr
    assert "1 distractor (0000) enrolled without identity; 1 junk (-1) left out" in enrolled.stderr
    assert re.fullmatch(r"7 crops in [\d.]+ s: 7 created, 0 duplicate, 0 updated, 0 failed\n", enrolled.stdout)

    again = resight("enrol", market, "--url", service.url)
    assert again.exit_code == 0
    assert "0 created, 7 duplicate" in again.stdout

    asked = resight("query", market / "0002_c1s1_000000_00.jpg", "--url", service.url, "--top-k", "2")
    assert asked.exit_code == 0
    lines = [line.split() for line in asked.stdout.splitlines() if line.strip()]
    assert lines[0] == ["match:", "0002"]
    assert lines[1] == ["rank", "identity", "distance", "similarity", "camera", "support", "crop"]
    assert lines[2][:5] == ["1", "0002", "0.0000", "1.0000", "c1"]
    assert lines[2][6] == "0002_c1s1_000000_00.jpg"
    assert lines[3][0] == "2"
    assert asked.stdout.rstrip().splitlines()[-1].startswith("7 crops searched exactly in ")

    narrowed = resight("query", market / "0002_c1s1_000000_00.jpg", "--url", service.url, "--exclude-camera", "c1")
    assert "0002_c2s1_000001_00.jpg" in narrowed.stdout
    assert "c1s1" not in narrowed.stdout
    nowhere = resight("query", market / "0002_c1s1_000000_00.jpg", "--url", service.url, "--camera", "c9")
    assert nowhere.stdout.splitlines()[0] == "unknown: nothing in the gallery passes these filters"


def test_query_prints_the_answer_of_the_service_as_json(service: Served, market: Path) -> None:
    probe = market / "0003_c1s1_000000_00.jpg"
    empty = resight("query", probe, "--url", service.url)
    assert empty.stdout.startswith("the gallery is empty")
    resight("enrol", market, "--url", service.url)
    answer = json.loads(resight("query", probe, "--url", service.url, "--json", "--top-k", "1").stdout)
    assert answer["verdict"] == "match"
    assert [match["identity"] for match in answer["matches"]] == ["0003"]
    assert answer["searched"] == 7


def test_names_are_asked_for_a_screenful_only(service: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(25):
        (tmp_path / f"{number:02}.png").write_bytes(crop(number))
    resight("enrol", tmp_path, "--layout", "files", "--url", service.url)
    asked: list[str] = []
    fetch = Resight.crop

    def noted(client: Resight, crop_id: str) -> Crop:
        asked.append(crop_id)
        return fetch(client, crop_id)

    monkeypatch.setattr(Resight, "crop", noted)
    result = resight("query", tmp_path / "07.png", "--url", service.url, "--top-k", "25")
    assert (len(asked), result.stdout.count(".png")) == (20, 20)
    assert re.search(r"^ *25 ", result.stdout, re.MULTILINE)


def test_a_failing_file_is_named_and_the_exit_code_says_so(service: Served, market: Path) -> None:
    (market / "0009_c1s1_000001_00.jpg").write_bytes(b"no image [at all]")
    result = resight("enrol", market, "--url", service.url, "--json")
    assert result.exit_code == 1
    assert "0009_c1s1_000001_00.jpg: This file is not a JPEG" in result.stderr
    assert "7 created, 0 duplicate, 0 updated, 1 failed" in result.stderr
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(records) == 8
    [failed] = [record for record in records if record["status"] == "failed"]
    assert (failed["source"], failed["crop_id"]) == ("0009_c1s1_000001_00.jpg", None)
    with Resight(service.url) as client:
        kept = {one.crop_id: one.meta for one in client.crops()}
    assert kept == {
        record["crop_id"]: {"source": record["source"]} for record in records if record["status"] == "created"
    }


def test_enrol_labels_single_images(service: Served, tmp_path: Path) -> None:
    (tmp_path / "anna.png").write_bytes(crop(5))
    result = resight("enrol", tmp_path / "anna.png", "--identity", "anna", "--camera", "door", "--url", service.url)
    assert result.exit_code == 0
    with Resight(service.url) as client:
        [kept] = client.crops()
    assert (kept.identity, kept.camera, kept.meta) == ("anna", "door", {"source": "anna.png"})


def test_ctrl_c_says_what_is_acknowledged_and_the_same_command_continues(
    service: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(64):
        (tmp_path / f"{number:02}.png").write_bytes(crop(number))

    def interrupted(client: Resight, items: list[Item]) -> Iterator[list[Outcome]]:
        yield next(bulk_enrol_all(client, items, in_flight=1))
        raise KeyboardInterrupt

    bulk_enrol_all = bulk.enrol_all
    with monkeypatch.context() as patch:
        patch.setattr("service.cli.bulk.enrol_all", interrupted)
        result = resight("enrol", tmp_path, "--layout", "files", "--url", service.url)
    assert result.exit_code == 130
    assert "Stopped: 32 of 64 crops are acknowledged. The same command continues" in result.stderr
    assert resight("enrol", tmp_path, "--layout", "files", "--url", service.url).exit_code == 0
    with Resight(service.url) as client:
        assert len(list(client.crops())) == 64


def test_a_service_that_goes_away_ends_it_with_a_count(
    service: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(40):
        (tmp_path / f"{number:02}.png").write_bytes(crop(number))
    monkeypatch.setattr("service.client.connection.time.sleep", lambda _: None)

    def stopping(client: Resight, items: list[Item]) -> Iterator[list[Outcome]]:
        yield next(bulk_enrol_all(client, items[:32]))
        service.runtime.worker.stop()
        yield from bulk_enrol_all(client, items[32:])

    bulk_enrol_all = bulk.enrol_all
    monkeypatch.setattr("service.cli.bulk.enrol_all", stopping)
    result = resight("enrol", tmp_path, "--layout", "files", "--url", service.url)
    assert result.exit_code == 1
    assert "Broken off: 32 of 40 crops are acknowledged." in result.stderr
    unready = resight("enrol", tmp_path, "--layout", "files", "--url", service.url)
    assert unready.exit_code == 2
    assert f"The service at {service.url} is not ready:" in unready.stderr


@pytest.mark.parametrize("command", ["enrol", "query", "model"])
def test_nothing_answers(silent_port: int, market: Path, command: str) -> None:
    url = f"http://127.0.0.1:{silent_port}"
    paths: list[str] = [] if command == "model" else [str(market / "0001_c1s1_000000_00.jpg")]
    result = resight(command, *paths, "--url", url)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == (
        f"Nothing answers at {url}: start the service with `resight serve` or name it with --url."
    )


def test_usage_errors_end_with_2(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_bytes(b"x")
    (tmp_path / "a.jpg").write_bytes(b"x")
    cases: list[tuple[list[str | Path], str]] = [
        (["enrol", tmp_path / "gone"], "does not exist"),
        (["enrol", tmp_path / "notes.txt"], "neither an image"),
        (["enrol", tmp_path, "--layout", "csv"], "is no CSV"),
        (["enrol", tmp_path / "a.jpg", "--url", "localhost"], "is no URL"),
        (["query", tmp_path / "gone.jpg"], "gone.jpg"),
        (["query"], "Missing argument"),
        (["enrol", tmp_path, "--layout", "tar"], "market1501"),
        (["enrol", ""], "an empty name"),
        (["query", ""], "an empty name"),
        (["enrol", tmp_path / "a.jpg", "--url", "http://["], "is no URL"),
        (["enrol", tmp_path / "a.jpg", "--url", "http://127.0.0.1:99999"], "is no URL"),
    ]
    for arguments, reason in cases:
        result = resight(*arguments)
        assert result.exit_code == 2, arguments
        assert reason in result.stderr, arguments
    (tmp_path / "a.jpg").unlink()
    assert "nothing to enrol" in resight("enrol", tmp_path).stderr


def test_a_probe_that_is_no_image_is_named(service: Served, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.jpg", tmp_path / "bad.jpg"
    good.write_bytes(crop(1))
    bad.write_bytes(b"x")
    result = resight("query", good, bad, "--url", service.url)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"{bad}: This file is not")


def test_model_shows_the_licence_notice(service: Served) -> None:
    result = resight("model", "--url", service.url)
    assert result.exit_code == 0
    assert re.search(r"^name +tiny-colours$", result.stdout, re.MULTILINE)
    assert result.stdout.endswith("\nFree to use; not trained on anybody.\n")
    answer = json.loads(resight("model", "--url", service.url, "--json").stdout)
    assert answer["sha256"] == service.runtime.info.sha256


def test_the_commands_as_a_person_runs_them(model_path: Path, market: Path, tmp_path: Path) -> None:
    archive = tmp_path / "bounding_box_test.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in market.iterdir():
            packed.write(path, f"bounding_box_test/{path.name}")
    options = ["--port", "0", "--model", str(model_path), "--gallery", f"sqlite:///{tmp_path / 'g'}"]
    log = tmp_path / "log"
    with (
        log.open("wb") as errors,
        subprocess.Popen([*RESIGHT, "serve", *options], stdout=subprocess.PIPE, stderr=errors, text=True) as served,
    ):
        try:
            assert served.stdout is not None
            announced = re.search(r"http://[\d.:]+\d", served.stdout.readline())
            assert announced is not None, log.read_text()
            url = announced[0]
            enrolled = _run("enrol", archive, "--url", url)
            assert (enrolled.returncode, enrolled.stdout.partition(": ")[2]) == (
                0,
                "7 created, 0 duplicate, 0 updated, 0 failed\n",
            )
            probe = market / "0001_c2s1_000001_00.jpg"
            asked = _run("query", probe, "--url", url, "--exclude-camera", "c2")
            assert asked.returncode == 0
            assert "0001_c1s1_000000_00.jpg" in asked.stdout
        finally:
            served.send_signal(signal.SIGINT)
            served.communicate(timeout=30)
    assert served.returncode == 0
    assert "Traceback" not in log.read_text()


def _run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*RESIGHT, *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_help_is_a_page_and_loads_nothing_heavy() -> None:
    page = resight("--help").stdout
    for word in ("resight serve", "resight enrol", "resight query", "model", "/docs"):
        assert word in page
    heavy = "{'numpy', 'httpx', 'onnxruntime', 'faiss', 'fastapi', 'PIL', 'uvicorn'}"
    code = f"import sys, service.cli.commands as cli; cli.command_line(); print(sorted({heavy} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert loaded.stdout == "[]\n"


def test_the_release_is_shown() -> None:
    result = resight("--version")
    assert (result.exit_code, result.stdout) == (0, f"resight {version('resight')}\n")


def test_every_command_stands_on_the_page() -> None:
    page = resight("--help").stdout
    for name in command_line().registered_commands:
        assert re.search(rf"^│ {name.name} ", page, re.MULTILINE), name.name
    assert {"keys", "identities"} <= set(page.split())


def test_the_default_url_is_the_client_s() -> None:
    assert connecting.DEFAULT_URL == DEFAULT_URL


@pytest.fixture
def stranger() -> Iterator[tuple[str, dict[str, tuple[int, bytes]]]]:
    """Some other server: its address, and what it answers by path."""
    pages: dict[str, tuple[int, bytes]] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = pages.get(self.path, (404, b"<h1>No such page</h1>"))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", pages
        finally:
            server.shutdown()
            thread.join()


READY = json.dumps({"status": "ready", "model": {"name": "m", "sha256": "0"}}).encode()


@pytest.mark.parametrize("flags", [[], ["--json"]])
@pytest.mark.parametrize("command", ["enrol", "query", "model"])
def test_a_server_that_is_no_resight_is_told(
    stranger: tuple[str, dict[str, tuple[int, bytes]]], market: Path, command: str, flags: list[str]
) -> None:
    url, pages = stranger
    paths = [] if command == "model" else [str(market / "0001_c1s1_000000_00.jpg")]
    for page in ((404, b"<h1>No</h1>"), (200, b"<h1>Welcome</h1>"), (200, b"{}"), (200, b"[]"), (200, READY)):
        pages |= {"/readyz": page} | dict.fromkeys(("/gallery", "/query", "/model"), (200, b'{"a": 1}'))
        result = resight(command, *paths, "--url", url, *flags)
        assert (result.exit_code, result.stdout) == (2, ""), page
        assert result.stderr.splitlines()[-1] == f"{url} answers, but it is not a Resight service."


def test_a_probe_is_a_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    result = resight("query", tmp_path / "pipe.jpg")
    assert result.exit_code == 2
    assert result.stderr == f"{tmp_path / 'pipe.jpg'}: cannot be read: it is no regular file.\n"


def test_a_name_that_is_not_utf8_is_enrolled_with_replacements(service: Served, tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")).write_bytes(crop(1))
    result = resight("enrol", tmp_path, "--url", service.url, "--json")
    assert result.exit_code == 0, result.stderr
    with Resight(service.url) as client:
        assert [one.meta for one in client.crops()] == [{"source": "caf\ufffd.jpg"}]
    (tmp_path / "good.jpg").write_bytes(crop(2))
    labelled = resight("enrol", tmp_path / "good.jpg", "--identity", "John Doe", "--url", service.url)
    assert labelled.exit_code == 1
    assert "good.jpg: identity: must be 1-128 of the letters A-Z a-z, digits and . _ : -." in labelled.stderr
