"""Wrong input on every command and option: a sentence that says what to do, exit code 2 (the service's: 1)."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.drawn_crops import crop
from tests.service.cli.running import RESIGHT, resight
from tests.service.cli.test_documentation import COMMANDS
from tests.serving import Served

# {gone}: no such file, {file}: a text file, {crop}: a picture, {folder}: an empty folder, {model}: a good model
OFFLINE = {
    "": "Usage",
    "enroll {crop}": "Did you mean 'enrol'",
    "--nonsense": "No such option",
    "serve --port many": "valid integer",
    "serve --port 99999": "--port: ",
    "serve --host no.such.host.invalid --allow-anonymous": "--host",
    "serve --port 0 --model {gone}": "gone",
    "serve --port 0 --model {folder}": "folder",
    "serve --port 0 --model {file}": "file.txt",
    "serve --device abacus": "--device: ",
    "serve --gallery here": "sqlite:///FOLDER",
    "serve --index magic": "--index: ",
    "serve --store-images all": "--store-images: ",
    "serve --match-distance 7": "--match-distance: ",
    "serve --max-batch 3": "1, 2, 4, 8",
    "serve --threads 0": "--threads: ",
    "serve --queue-limit 1": "--queue-limit: ",
    "serve --log-level loud": "--log-level: ",
    "serve --port 0 --model {model} --keys-file {gone}": "gone",
    "serve --rate-limit 0": "--rate-limit: ",
    "serve --retention-days 0": "--retention-days: ",
    "serve --milvus-token-file {file}": "is for a gallery in Milvus",
    "serve --gallery milvus://h/c --pictures here": "--pictures: ",
    "serve --s3-endpoint here": "--s3-endpoint: ",
    "serve --s3-credentials-file {file}": "is for a gallery in Milvus",
    "serve --host 0.0.0.0": "RESIGHT_KEYS_FILE",
    "enrol {gone}": "does not exist",
    "enrol {file}": "neither an image",
    "enrol {folder}": "nothing to enrol",
    "enrol {crop} --layout tar": "market1501",
    "enrol {crop} --url nowhere": "is no URL",
    "enrol {crop} --key-file {gone}": "cannot be read",
    "query {gone}": "gone",
    "query {crop} --top-k 0": "--top-k",
    "query {crop} --top-k few": "--top-k",
    "query {crop} --key-file {folder}": "cannot be read",
    "watch {gone}": "is no folder",
    "watch {folder} --every never": "--every",
    "watch {folder} --layout csv": "does not fit",
    "demo --crops {gone}": "does not exist",
    "demo --crops {folder}": "no crops",
    "demo --url nowhere": "is no URL",
    "model --url http://": "is no URL",
    "identities": "Usage",
    "identities show": "Missing argument",
    "identities rename a": "Missing argument",
    "identities merge a": "two or more",
    "identities list --url nowhere": "is no URL",
    "backup {folder} --gallery sqlite:///{gone}": "no gallery",
    "backup {folder} --gallery milvus://h/c": "is in Milvus",
    "restore {gone} --gallery sqlite:///{gone}": "gone",
    "restore {file} --gallery sqlite:///{gone}": "file.txt",
    "export {gone}.tar --gallery sqlite:///{gone}": "no gallery",
    "import {gone} --model {model} --gallery sqlite:///{other}": "gone",
    "import {file} --model {model} --gallery sqlite:///{other}": "file.txt",
    "import {file} --store-images all": "--store-images: ",
    "reembed --model {gone}": "gone",
    "reembed --model {model} --gallery sqlite:///{gone}": "no gallery",
    "reembed --threads 0": "--threads: ",
    "calibrate {gone} --model {model}": "does not exist",
    "calibrate --false-match-rate 2": "--false-match-rate",
    "calibrate --gallery sqlite:///{gone}": "no gallery",
    "compact --gallery sqlite:///{gone}": "no gallery",
    "maintain --gallery sqlite:///{gone}": "RESIGHT_RETENTION_DAYS",
    "maintain --retention-days 0": "--retention-days: ",
    "migrate here": "MILVUS_URL|milvus://HOST:PORT/COLLECTION",
    "migrate milvus://h/c --gallery sqlite:///{gone}": "no gallery",
    "migrate sqlite:///{folder} --gallery sqlite:///{gone}": "is not in Milvus|no gallery",
    "optimize {gone} --output {folder}/new.onnx": "gone",
    "optimize {file} --output {folder}/new.onnx": "file.txt",
    "optimize {model} --output {folder}/new.onnx --crops {gone}": "gone",
    "optimize {model} --output {folder}/new.onnx --threads 0": "--threads",
    "optimize {model}": "--output",
    "keys": "Usage",
    "keys create gate --scope all --file {gone}": "--scope",
    "keys create a/b --scope query --file {gone}": "a/b|name",
    "keys create gate --scope query --file {file}": "file.txt",
    "keys list --file {gone}": "gone",
    "keys revoke gate --file {gone}": "gone",
    "doctor --port many": "--port",
}
ASKED = {
    "query {file}": "file.txt",
    "query {crop} --camera {space}": "camera",
    "query {crop} --exclude-camera {space}": "camera",
    "query " + "{crop} " * 17: "16",
    "enrol {crop} --identity {space}": "identity: must be",
    "enrol {crop} --camera {space}": "camera: must be",
    "identities show {space}": "There is no identity|identity",
    "identities rename anna {space}": "identity",
    "identities rename anna {empty}": "identity|name",
    "identities erase {empty} --yes": "There is no identity",
}


@pytest.fixture
def words(tmp_path: Path, model_path: Path) -> dict[str, str]:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.txt").write_text("not what was wanted")
    (tmp_path / "crop.png").write_bytes(crop(1))
    places = {name: str(tmp_path / name) for name in ("gone", "folder", "other")}
    files = {"file": str(tmp_path / "file.txt"), "crop": str(tmp_path / "crop.png"), "model": str(model_path)}
    return {**places, **files, "space": "John Doe", "empty": ""}


def refused(line: str, words: dict[str, str], reason: str, *more: str) -> int:
    """Runs it; its exit code, once it has said why in a sentence."""
    result = resight(*(word.format(**words) for word in line.split()), *more)
    said = re.sub(r"[│\s]+", " ", result.stderr or result.stdout)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert re.search(reason, said), said
    assert "Traceback" not in said
    return result.exit_code


@pytest.mark.parametrize(("line", "reason"), OFFLINE.items())
def test_what_is_wrong_is_told(line: str, reason: str, words: dict[str, str], tmp_path: Path) -> None:
    assert refused(line, words, reason) == 2
    assert not list((tmp_path / "folder").iterdir())
    assert not (tmp_path / "gone").exists()
    assert (tmp_path / "file.txt").read_text() == "not what was wanted"


@pytest.mark.parametrize(("line", "reason"), ASKED.items())
def test_what_the_service_refuses_is_told(
    service: Served, line: str, reason: str, words: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "anna.png").write_bytes(crop(2))
    assert resight("enrol", tmp_path / "anna.png", "--identity", "anna", "--url", service.url).exit_code == 0
    assert refused(line, words, reason, "--url", service.url) == 1
    assert service.gallery.crop_count == 1


@pytest.mark.parametrize("command", ["enrol", "watch", "backup", "calibrate", "demo --no-browser --crops"])
def test_a_name_that_is_too_long_is_told(command: str) -> None:
    line = [*RESIGHT, *command.split(), 5000 * "x"]
    ended = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.endswith("x cannot be used: File name too long.\n")
    assert "Traceback" not in ended.stderr


def test_every_command_is_tried() -> None:
    tried = "\n".join((*OFFLINE, *ASKED))
    for name in COMMANDS:
        assert name in tried or name in ("doctor",), name
