from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.cli import checks
from service.cli.checks import State
from service.settings import Settings
from tests.service.cli.running import resight
from tests.serving import Served
from tests.tiny_model import write_tiny_model


@pytest.fixture
def run(model_path: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Runs the doctor with the tiny model; its JSON, with the checks by name."""

    def examined(*options: str | Path, code: int = 0, gallery: Path | None = None) -> dict[str, Any]:
        place = f"sqlite:///{gallery or tmp_path / 'data'}"
        defaults: list[str | Path] = ["--model", model_path, "--device", "cpu", "--gallery", place, "--port", "0"]
        result = resight("doctor", "--json", *defaults, *options)
        assert result.exit_code == code, result.output
        answer: dict[str, Any] = json.loads(result.stdout)
        answer["by_name"] = {one["name"]: one for one in answer["checks"]}
        return answer

    return examined


def test_all_is_well(run: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    answer = run()
    assert answer["ok"]
    assert {one["state"] for one in answer["checks"]} == {"ok"}
    assert {"python", "onnxruntime", "faiss", "model", "provider", "data folder", "port", "settings"} <= set(
        answer["by_name"]
    )
    assert answer["by_name"]["provider"]["found"].startswith("CPUExecutionProvider, self-test passed")
    assert not (tmp_path / "data").exists()


def test_every_setting_is_shown_with_where_it_comes_from(
    run: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESIGHT_QUEUE_LIMIT", "99")
    monkeypatch.setenv("RESIGHT_API_KEY", "secret-key")
    monkeypatch.setenv("RESIGHT_URL", "http://me:secret-word@127.0.0.1:9")
    answer = run()
    found = {one["name"]: (one["value"], one["source"]) for one in answer["settings"]}
    assert set(found) == {f"RESIGHT_{name.upper()}" for name in (*Settings.model_fields, "url", "api_key")}
    assert found["RESIGHT_QUEUE_LIMIT"] == ("99", "environment")
    assert found["RESIGHT_DEVICE"] == ("cpu", "option")
    assert found["RESIGHT_INDEX"] == ("auto", "default")
    assert found["RESIGHT_URL"] == ("http://…@127.0.0.1:9", "environment")
    assert "secret" not in json.dumps(answer)


def test_the_table_says_what_to_do(tmp_path: Path) -> None:
    result = resight("doctor", "--model", tmp_path / "gone.onnx", "--gallery", f"sqlite:///{tmp_path}", "--port", "0")
    assert result.exit_code == 1
    assert "fail model: Name a model file with RESIGHT_MODEL." in result.stdout
    assert "RESIGHT_STORE_IMAGES" in result.stdout


def test_an_unknown_setting_fails(run: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESIGHT_DEVISE", "cpu")
    answer = run(code=1)
    assert "did you mean RESIGHT_DEVICE?" in answer["by_name"]["settings"]["found"]


def test_what_rests_on_no_wrong_setting_is_looked_at_all_the_same(
    run: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RESIGHT_THREADS", "0")
    monkeypatch.setenv("RESIGHT_RATE_LIMIT", "none")
    answer = run("--model", tmp_path / "gone.onnx", code=1)
    wrong = [one for one in answer["checks"] if one["name"] == "settings"]
    assert len(wrong) == 2
    assert all("its default" in one["advice"] for one in wrong)
    assert "gone.onnx" in answer["by_name"]["model"]["found"]
    assert {"data folder", "port"} <= set(answer["by_name"])
    assert ("RESIGHT_THREADS", "default") in {(one["name"], one["source"]) for one in answer["settings"]}


def test_a_running_service_is_recognised(service: Served, run: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    by_name = run("--port", service.url.rpartition(":")[2])["by_name"]
    assert by_name["port"]["found"].startswith("Resight answers at 127.0.0.1:")
    assert by_name["data folder"]["found"].endswith("in use by a running service")
    assert by_name["gallery"]["found"].startswith("0 crops, schema version ")


def test_a_gallery_of_another_model_fails(service: Served, run: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    other = write_tiny_model(tmp_path / "other.onnx", colours=(1, 2, 1))
    check = run("--model", other, code=1)["by_name"]["gallery"]
    assert "of the model tiny-colours" in check["found"]
    assert "resight reembed" in check["advice"]


def test_a_damaged_gallery_and_an_unusable_folder_fail(run: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "gallery.db").write_bytes(b"no database at all" * 100)
    assert run(gallery=damaged, code=1)["by_name"]["gallery"]["state"] == "fail"
    (tmp_path / "file").write_bytes(b"")
    assert run(gallery=tmp_path / "file", code=1)["by_name"]["data folder"]["state"] == "fail"
    assert run(gallery=tmp_path / "file" / "below", code=1)["by_name"]["data folder"]["state"] == "fail"


def test_a_port_of_another_program_fails(run: Callable[..., dict[str, Any]]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        check = run("--port", str(other.getsockname()[1]), code=1)["by_name"]["port"]
    assert check["found"].startswith("another program listens on 127.0.0.1:")


def test_keys(run: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    assert run("--keys-file", file, code=1)["by_name"]["keys"]["state"] == "fail"
    assert resight("keys", "create", "gate", "--scope", "enrol", "--file", file).exit_code == 0
    assert run("--keys-file", file)["by_name"]["keys"]["found"] == f"1 in {file}"


def test_a_milvus_that_does_not_answer_fails(model_path: Path) -> None:
    options: list[str | Path] = [
        "--model",
        model_path,
        "--device",
        "cpu",
        "--gallery",
        "milvus://127.0.0.1:1/crops",
        "--port",
        "0",
    ]
    result = resight("doctor", "--json", *options)
    assert result.exit_code == 1
    by_name = {one["name"]: one for one in json.loads(result.stdout)["checks"]}
    assert by_name["milvus"]["state"] == "fail"


def test_two_packages_of_one_module_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"onnxruntime": "1.31", "onnxruntime-gpu": "1.31"}
    monkeypatch.setattr(checks, "_version", there.get)
    assert checks.variant("onnxruntime", checks.VARIANTS["onnxruntime"]).state is State.FAIL
    there.clear()
    missing = checks.variant("onnxruntime", checks.VARIANTS["onnxruntime"])
    assert (missing.state, "pip install 'resight[cpu]'" in missing.advice) == (State.FAIL, True)
    there["faiss-cpu"] = "1"
    broken = checks.variant("no_such_module", ("faiss-cpu",))
    assert "does not load" in broken.found


def test_what_the_machine_may_lack() -> None:
    assert checks.python((3, 10, 2)).state is State.FAIL
    assert checks.clock(0).state is State.FAIL
    assert checks.open_files(256).state is State.WARN
    assert checks.open_files(1024).state is State.OK
