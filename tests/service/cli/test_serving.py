from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from service.cli import commands as cli
from service.cli.serve import serve as serve_command
from service.client import Resight
from service.keys import KeyScope, create_key
from service.settings import Settings
from tests.service.cli.running import RESIGHT, resight
from tests.serving import Served


def test_serve_has_an_option_for_every_setting() -> None:
    page = CliRunner(env={"COLUMNS": "200"}).invoke(cli.command_line(), ["serve", "--help"]).stdout
    options = set(re.findall(r"--([a-z0-9-]+)", page)) - {"help"}
    assert {name.replace("_", "-") for name in Settings.model_fields} <= options
    offered = set(serve_command.__annotations__) - {"return"}
    assert offered == set(Settings.model_fields)
    for name, field in Settings.model_fields.items():
        if field.default not in (None, False):
            assert f"[default: {field.default}]" in re.sub(r"\s+", " ", page), name


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--model", "gone.onnx"], "gone.onnx"),
        (
            ["--device", "abacus"],
            "RESIGHT_DEVICE / --device: Input should be 'auto', 'cpu', 'cuda' or 'tensorrt', not 'abacus'",
        ),
        (
            ["--max-batch", "3"],
            "RESIGHT_MAX_BATCH / --max-batch: the largest batch must be 1, 2, 4, 8, 16, 32 or 64, not 3",
        ),
        (["--host", "0.0.0.0"], "RESIGHT_ALLOW_ANONYMOUS"),
        (
            ["--s3-endpoint", "minio:9000"],
            "RESIGHT_S3_ENDPOINT / --s3-endpoint: the store of the pictures is written http(s)://HOST:PORT, "
            "not 'minio:9000'",
        ),
        (["--gallery", "milvus://user:pw/@1@host:1/x"], "RESIGHT_MILVUS_TOKEN_FILE"),
        (["--gallery", "milvus://user:pw/@1@host:1/x"], ", not 'milvus://…@host:1/x'"),
        (["--gallery", "user:pw@host:1/x"], ", not '…@host:1/x'"),
        (["--gallery", "milvus://host:1/x?token=pw"], ", not 'milvus://host:1/x?…'"),
    ],
)
def test_serve_says_in_one_line_why_it_does_not_start(options: list[str], reason: str) -> None:
    result = resight("serve", "--port", "0", *options)
    assert result.exit_code == 2
    assert reason in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert "pw" not in result.stderr


def test_serve_says_that_the_port_or_the_gallery_is_taken(service: Served, model_path: Path, tmp_path: Path) -> None:
    port = service.url.rpartition(":")[2]
    taken = resight("serve", "--port", port, "--model", model_path)
    assert (taken.exit_code, taken.stdout) == (2, "")
    assert f"Cannot listen on 127.0.0.1:{port}: Address already in use" in taken.stderr
    locked = resight("serve", "--port", "0", "--model", model_path, "--gallery", f"sqlite:///{tmp_path / 'data'}")
    assert locked.exit_code == 2
    assert locked.stderr.splitlines()[-1].startswith("Cannot start: ")
    assert str(tmp_path / "data") in locked.stderr.splitlines()[-1]


def test_the_cookie_is_for_https_where_a_proxy_that_is_trusted_says_so(model_path: Path, tmp_path: Path) -> None:
    headers = {"X-Forwarded-Proto": "https", "Host": "localhost"}
    headers["Authorization"] = f"Bearer {create_key(tmp_path / 'keys.json', 'desk', KeyScope.QUERY)}"
    options = ["--port", "0", "--model", str(model_path), "--gallery", f"sqlite:///{tmp_path / 'g'}"]
    command = [*RESIGHT, "serve", *options, "--keys-file", str(tmp_path / "keys.json"), "--log-level", "error"]
    environment = {**os.environ, "FORWARDED_ALLOW_IPS": "127.0.0.2"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as served:
        assert served.stdout is not None
        try:
            told = re.search(r"http://\S+:\d+", served.stdout.readline())
            assert told is not None
            secure = {}
            for proxy in ("127.0.0.2", "127.0.0.1"):
                with httpx.Client(transport=httpx.HTTPTransport(local_address=proxy)) as client:
                    cookie = client.post(f"{told[0]}/session", headers=headers).headers["set-cookie"]
                    secure[proxy] = "; secure" in cookie.lower()
        finally:
            served.send_signal(signal.SIGINT)
    assert secure == {"127.0.0.2": True, "127.0.0.1": False}


def test_serving_needs_no_stdout(model_path: Path, tmp_path: Path) -> None:
    options = ["--port", "0", "--model", str(model_path), "--gallery", f"sqlite:///{tmp_path / 'g'}"]
    with (
        Path("/dev/full").open("wb") as full,
        subprocess.Popen([*RESIGHT, "serve", *options], stdout=full, stderr=subprocess.PIPE, text=True) as served,
    ):
        assert served.stderr is not None
        try:
            told = next(line for line in map(json.loads, served.stderr) if "stdout" in line["message"])
            with Resight(told["url"]) as client:
                assert client.ready().ready
        finally:
            served.send_signal(signal.SIGINT)
            _, rest = served.communicate(timeout=30)
    assert served.returncode == 0
    assert "Traceback" not in rest
