"""A start with a gallery in Milvus: what is refused before anything is asked, and what is said while it waits.

Milvus is away, and its client is played by a module that fails some times first.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from service.app import running
from service.galleries import open_existing
from service.gallery.records import GalleryUnavailable
from service.gallery_milvus.address import Address
from service.gallery_milvus.server import FIRST_SECONDS, SETUP_SECONDS, Server
from service.inference.model import ModelError
from service.settings import Settings
from tests.service.cli.running import RESIGHT, resight
from tests.service.gallery.cases import new_crop, open_gallery, units

URL = "milvus://127.0.0.1:1/people"
WAITING = "Milvus at 127.0.0.1:1 does not answer, trying for two minutes"
FAILURES = 3
CLIENT = f"""
class MilvusException(Exception):
    pass

class exceptions:
    class ParamError(MilvusException):
        pass

timeouts = []

class MilvusClient:
    def __init__(self, timeout, **_):
        timeouts.append(timeout)
        if len(timeouts) <= {FAILURES}:
            raise MilvusException("server unavailable")

    def has_collection(self, *_, timeout):
        timeouts.append(timeout)
        return False

    def close(self):
        pass
"""
GRPC = """
class StatusCode:
    UNAUTHENTICATED, PERMISSION_DENIED = 16, 7

class RpcError(Exception):
    def __init__(self, code):
        self.code = lambda: code
"""


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("RESIGHT_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def timeouts(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The client that fails first, in this process; returns how long each of its calls may take."""
    for name, text in (("pymilvus", CLIENT), ("grpc", GRPC)):
        module = ModuleType(name)
        exec(text, vars(module))
        monkeypatch.setitem(sys.modules, name, module)
    found: list[float] = sys.modules["pymilvus"].timeouts
    return found


@pytest.fixture
def _no_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever goes as far as Milvus is told so at once, in other words."""
    monkeypatch.setitem(sys.modules, "pymilvus", None)


def test_a_start_that_waits_for_milvus_says_so_once(timeouts: list[float], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING", "service.gallery_milvus.server")
    server = Server(Address.parse(URL))
    assert server.call("has_collection", SETUP_SECONDS, "people") is False
    assert [(one.levelname, one.getMessage()) for one in caplog.records] == [("WARNING", WAITING)]
    assert len(timeouts) == FAILURES + 2
    assert timeouts[0] <= FIRST_SECONDS  # otherwise the first try would be two silent minutes
    assert timeouts[1] <= 2 * FIRST_SECONDS
    server.call("has_collection", SETUP_SECONDS, "people")
    assert timeouts[-1] > SETUP_SECONDS / 2
    assert len(caplog.records) == 1


def test_a_start_from_which_milvus_goes_away_says_so(
    timeouts: list[float], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    timeouts += [0.0] * FAILURES  # it answers at once
    client = sys.modules["pymilvus"]
    answers = [True, client.MilvusException("server unavailable"), True]

    def answer(*_: object, **__: object) -> bool:
        found = answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return bool(found)

    monkeypatch.setattr(client.MilvusClient, "has_collection", answer)
    server = Server(Address.parse(URL))
    server.call("has_collection", SETUP_SECONDS, "people")
    assert caplog.messages == []
    server.call("has_collection", SETUP_SECONDS, "people")
    assert caplog.messages == [WAITING]


@pytest.mark.usefixtures("timeouts")
@pytest.mark.parametrize("code", [16, 7])
@pytest.mark.parametrize("wrapped", [True, False])
def test_a_token_that_milvus_does_not_take_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, code: int, wrapped: bool
) -> None:
    client, refused = sys.modules["pymilvus"], sys.modules["grpc"].RpcError(code)
    tries = []

    def refuse(**_: object) -> None:
        tries.append(code)
        if wrapped:  # as the client does while it connects
            raise client.MilvusException("server unavailable") from refused
        raise refused

    monkeypatch.setattr(client, "MilvusClient", refuse)
    with pytest.raises(GalleryUnavailable, match="RESIGHT_MILVUS_TOKEN_FILE must name a file"):
        Server(Address.parse(URL), "root:secret").call("has_collection", SETUP_SECONDS, "people")
    assert len(tries) == 1


@pytest.mark.parametrize("command", [["maintain"], ["export", "crops.tar"]])
def test_commands_say_on_stderr_that_they_wait(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "pymilvus.py").write_text(CLIENT)
    (tmp_path / "grpc.py").write_text(GRPC)
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [*RESIGHT, *command, "--gallery", URL],
        env={**os.environ, "PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 2, done.stderr
    lines = done.stderr.splitlines()
    assert lines.count(WAITING) == 1
    assert lines[-1] == f"There is no gallery {URL} in Milvus."


@pytest.mark.usefixtures("_no_client")
@pytest.mark.parametrize(("content", "reason"), [(None, "cannot be read"), (" \n", "is empty")])
def test_a_token_file_without_a_token_is_refused_at_once(tmp_path: Path, content: str | None, reason: str) -> None:
    token = tmp_path / "token"
    if content is not None:
        token.write_text(content)
    settings = Settings(gallery=URL, milvus_token_file=token, model=tmp_path / "gone.onnx")
    with pytest.raises(GalleryUnavailable, match=reason):
        open_existing(settings)
    with pytest.raises(GalleryUnavailable, match=reason), running(settings):  # before it misses the model
        pass


@pytest.mark.usefixtures("_no_client")
@pytest.mark.parametrize("index", ["cagra", "foo"])
def test_migrate_refuses_an_index_that_milvus_does_not_build(index: str) -> None:
    refused = resight("migrate", URL, "--index", index)
    assert (refused.exit_code, refused.stderr) == (
        2,
        "RESIGHT_INDEX / --index: a gallery in Milvus has one of the indexes auto, exact, hnsw, ivf, compressed, "
        f"not '{index}'\n",
    )


@pytest.mark.usefixtures("_no_client")
def test_migrate_asks_for_a_place_for_pictures_before_it_asks_milvus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data"
    with open_gallery(folder) as gallery:
        gallery.enrol([new_crop(1, units(np.random.default_rng(1), 1)[0])])
    migrate = ["migrate", URL, "--gallery", f"sqlite:///{folder}"]
    refused = resight(*migrate)
    assert refused.exit_code == 2
    assert "pictures, and there is no place for them: set RESIGHT_PICTURES, or say --drop-pictures" in refused.stderr
    assert "needs the package pymilvus" in resight(*migrate, "--drop-pictures").stderr
    for name, value in (("PICTURES", "s3://crops"), ("S3_CREDENTIALS_FILE", "s3.json"), ("MILVUS_TOKEN_FILE", "gone")):
        monkeypatch.setenv(f"RESIGHT_{name}", value)
    assert resight(*migrate).stderr.splitlines()[-1] == "gone, which holds Milvus's token, cannot be read."


@pytest.mark.parametrize(
    ("changes", "warned"),
    [
        ({"gallery": URL}, ["RESIGHT_PICTURES is not set"]),
        ({"gallery": URL, "store_images": "none"}, []),
        ({"gallery": URL, "pictures": "s3://crops", "s3_credentials_file": Path("s3.json")}, []),
        ({"gallery": URL, "store_images": "none", "retention_days": 30}, ["RESIGHT_RETENTION_DAYS=30"]),
        ({"retention_days": 30}, []),
    ],
)
def test_the_start_warns_of_what_a_gallery_in_milvus_does_not_do(
    make_settings: Callable[..., Settings],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    changes: dict[str, object],
    warned: list[str],
) -> None:
    caplog.set_level("WARNING", "service.app")
    settings = make_settings(model=tmp_path / "gone.onnx", threads=1, **changes)
    with pytest.raises(ModelError), running(settings):
        pass
    messages = [one.getMessage() for one in caplog.records if one.name == "service.app"]
    assert len(messages) == len(warned)
    assert all(message.startswith(start) for message, start in zip(messages, warned, strict=True))
