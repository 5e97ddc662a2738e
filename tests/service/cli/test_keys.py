"""`resight keys`, and the key of the commands that talk to a service."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.cli.output import OutputError
from service.client import Resight, ResightError
from service.keys import KeyScope, create_key, read_keys
from service.settings import Settings
from tests.drawn_crops import crop
from tests.service.cli.running import resight
from tests.serving import Served, serve


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RESIGHT_API_KEY", raising=False)
    monkeypatch.delenv("RESIGHT_KEYS_FILE", raising=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def guarded(make_settings: Callable[..., Settings], file: Path) -> Iterator[Served]:
    create_key(file, "first", KeyScope.QUERY)
    with serve(make_settings(keys_file=file, log_level="error")) as served:
        yield served


def test_create_list_and_revoke(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    created = resight("keys", "create", "gate-3", "--scope", "enrol", "--file", file)
    assert created.exit_code == 0
    token = created.stdout.removesuffix("\n")
    assert token.startswith("rsk_")
    assert token not in created.stderr
    assert created.stderr.startswith("The key gate-3, of scope enrol, stands in no file")
    monkeypatch.setenv("RESIGHT_KEYS_FILE", str(file))
    listed = resight("keys", "list")
    assert [line.split()[:2] for line in listed.stdout.splitlines()] == [["name", "scope"], ["gate-3", "enrol"]]
    (shown,) = json.loads(resight("keys", "list", "--json").stdout)
    assert set(shown) == {"name", "scope", "created"}
    assert resight("keys", "revoke", "gate-3").exit_code == 0
    assert resight("keys", "list").stdout == "There are no keys.\n"


def test_what_cannot_be_done_is_one_line(file: Path) -> None:
    absent = resight("keys", "list", "--file", file)
    assert (absent.exit_code, absent.stdout) == (2, "")
    assert "there is no key file" in absent.stderr
    resight("keys", "create", "a", "--scope", "query", "--file", file)
    again = resight("keys", "create", "a", "--scope", "query", "--file", file)
    assert (again.exit_code, again.stderr.count("\n"), again.stdout) == (2, 1, "")
    assert resight("keys", "revoke", "b", "--file", file).exit_code == 2
    assert resight("keys", "create", "b", "--file", file).exit_code == 2  # a scope is never a default
    assert [key.name for key in read_keys(file)] == ["a"]


def test_a_key_that_could_not_be_shown_does_not_count(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def full() -> Iterator[None]:
        yield
        raise OutputError("No space left on device")

    monkeypatch.setattr("service.cli.keys.writing", full)
    result = resight("keys", "create", "a", "--scope", "query", "--file", file)
    assert (result.exit_code, result.stderr) == (
        1,
        "The answer cannot be written to stdout: No space left on device.\n",
    )
    assert read_keys(file) == ()


def test_the_commands_send_the_key_of_a_file_or_of_the_environment(
    guarded: Served, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = tmp_path / "probe.png"
    probe.write_bytes(crop(1))
    without = resight("model", "--url", guarded.url)
    assert without.exit_code == 1
    assert without.stderr.endswith("Set RESIGHT_API_KEY, or say --key-file.\n")

    mine = tmp_path / "mine"
    mine.write_text(create_key(file, "query", KeyScope.QUERY) + "\n")
    assert resight("model", "--url", guarded.url, "--key-file", mine).exit_code == 0
    refused = resight("enrol", probe, "--url", guarded.url, "--key-file", mine)
    assert refused.exit_code == 1
    assert "has the scope query; this needs enrol." in refused.stderr
    assert "Broken off: 0 of 1 crops are acknowledged.\n" in refused.stderr  # and nothing goes on with this key

    monkeypatch.setenv("RESIGHT_API_KEY", create_key(file, "enrol", KeyScope.ENROL))
    assert resight("enrol", probe, "--url", guarded.url).exit_code == 0
    assert resight("query", probe, "--url", guarded.url, "--json").exit_code == 0
    assert resight("enrol", probe, "--url", guarded.url, "--key-file", mine).exit_code == 1  # what is said wins


@pytest.mark.parametrize("content", [b"", b"rsk_a rsk_b", b"rsk_a\nrsk_b", b"rsk_\xc3\xa4", b"rsk_\x00"])
def test_a_file_without_a_key_is_one_line_that_does_not_repeat_it(tmp_path: Path, content: bytes) -> None:
    mine = tmp_path / "mine"
    mine.write_bytes(content)
    result = resight("model", "--key-file", mine)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"--key-file: {mine}: ")
    assert "rsk_" not in result.stderr
    assert result.stderr.count("\n") == 1
    missing = resight("model", "--key-file", tmp_path / "none")
    assert (missing.exit_code, "cannot be read: No such file" in missing.stderr) == (2, True)


def test_the_client_sends_its_key(guarded: Served, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Resight(guarded.url) as stranger:
        assert stranger.ready().ready
        with pytest.raises(ResightError, match="Bearer rsk_") as refused:
            stranger.model()
        assert refused.value.status == 401
    key = create_key(file, "a", KeyScope.QUERY)
    with Resight(guarded.url, key=f" {key}\n") as client:
        assert client.model().name == "tiny-colours"
        assert client.ready().details["provider"] == "CPUExecutionProvider"
    monkeypatch.setenv("RESIGHT_API_KEY", key)
    with Resight(guarded.url) as client:
        assert client.model().name == "tiny-colours"
    for broken in ("", "two words", "a\r\nX-Evil: b", "ä"):
        with pytest.raises(ValueError, match="no key; copy it again"):
            Resight(guarded.url, key=broken)
