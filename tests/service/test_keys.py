"""The key file: what it keeps, how it is changed, and what a broken one does."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path

import pytest

from service.keys import Key, KeyRing, KeyScope, KeysError, create_key, digest_of, read_keys, revoke_key

GOOD = {"name": "a", "scope": "query", "sha256": "0" * 64, "created": "2026-05-01T12:00:00+00:00"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def test_a_key_is_made_found_and_revoked(file: Path) -> None:
    token = create_key(file, "gate-3", KeyScope.ENROL)
    ring = KeyRing(file)
    found = ring.find(token)
    assert found is not None
    assert (found.name, found.scope) == ("gate-3", KeyScope.ENROL)
    assert ring.named("gate-3") == found
    for wrong in (token[:-1] + ("0" if token[-1] != "0" else "1"), token.upper(), "", digest_of(token)):
        assert ring.find(wrong) is None
    revoke_key(file, "gate-3")
    assert ring.find(token) is None
    assert ring.current() == ()


def test_the_file_has_no_key_and_is_its_owners(file: Path) -> None:
    tokens = [create_key(file, name, KeyScope.QUERY) for name in ("a", "b")]
    assert len({*tokens}) == 2
    assert all(token.startswith("rsk_") and len(token) == 4 + 64 for token in tokens)
    text = file.read_text()
    assert not any(token in text or token.removeprefix("rsk_") in text for token in tokens)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sorted(one.name for one in file.parent.iterdir()) == [".keys.json.lock", "keys.json"]


def test_scopes_include_those_below() -> None:
    covered = {(one, other) for one in KeyScope for other in KeyScope if one.covers(other)}
    assert covered == {
        ("query", "query"),
        ("enrol", "query"), ("enrol", "enrol"),
        ("admin", "query"), ("admin", "enrol"), ("admin", "admin"),
    }  # fmt: skip


REFUSED_NAMES = ["", "a b", "ä", "x" * 129, "anonymous", "../x", "a\n"]


@pytest.mark.parametrize("name", REFUSED_NAMES)
def test_a_name_that_cannot_be_used(file: Path, name: str) -> None:
    with pytest.raises(KeysError, match="name"):
        create_key(file, name, KeyScope.QUERY)
    assert not file.exists()


def test_a_name_is_given_once_and_a_stranger_not_revoked(file: Path) -> None:
    create_key(file, "a", KeyScope.QUERY)
    before = file.read_bytes()
    with pytest.raises(KeysError, match="named a already"):
        create_key(file, "a", KeyScope.ADMIN)
    with pytest.raises(KeysError, match="no key of that name"):
        revoke_key(file, "b")
    with pytest.raises(KeysError, match="there is no key file"):
        revoke_key(file.with_name("other.json"), "a")
    assert file.read_bytes() == before


BROKEN = {
    "nothing": "",
    "no JSON": "keys: []",
    "no text": b"\xff\xfe".decode("latin-1"),
    "a list": "[]",
    "more members": '{"keys": [], "more": 1}',
    "no list": '{"keys": {}}',
    "a number for a key": '{"keys": [1]}',
    "a missing field": json.dumps({"keys": [{**GOOD, "sha256": None}]}),
    "a strange field": json.dumps({"keys": [{**GOOD, "x": "y"}]}),
    "a scope of its own": json.dumps({"keys": [{**GOOD, "scope": "root"}]}),
    "a key for a hash": json.dumps({"keys": [{**GOOD, "sha256": "rsk_secret"}]}),
    "a name for nobody": json.dumps({"keys": [{**GOOD, "name": "anonymous"}]}),
    "one name twice": json.dumps({"keys": [GOOD, GOOD]}),
    "deep nesting": "[" * 100_000,
    "too much": " " * (2**20 + 1),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_one_sentence_and_is_left_alone(file: Path, name: str) -> None:
    file.write_text(BROKEN[name], encoding="latin-1")
    for use in (lambda: KeyRing(file), lambda: create_key(file, "b", KeyScope.QUERY), lambda: revoke_key(file, "a")):
        with pytest.raises(KeysError, match=r"keys\.json is damaged: .*; mend it") as raised:
            use()
        assert "rsk_secret" not in str(raised.value)
    assert file.read_text(encoding="latin-1") == BROKEN[name]


def test_a_good_file_is_read(file: Path) -> None:
    file.write_text(json.dumps({"keys": [GOOD]}))
    assert read_keys(file) == (Key("a", KeyScope.QUERY, "0" * 64, GOOD["created"]),)


@pytest.mark.parametrize("breaking", ["garbage", "missing", "a folder"])
def test_a_ring_keeps_the_last_good_version(file: Path, breaking: str, caplog: pytest.LogCaptureFixture) -> None:
    token = create_key(file, "a", KeyScope.QUERY)
    ring = KeyRing(file)
    file.unlink()
    if breaking == "garbage":
        file.write_text("{")
    elif breaking == "a folder":
        file.mkdir()
    assert ring.find(token) is not None
    assert ring.trouble is not None
    assert "keys.json" in ring.trouble
    assert ring.find(token) is not None
    assert [one.levelname for one in caplog.records] == ["ERROR"]  # once, not at each request

    if breaking == "a folder":
        file.rmdir()
    file.unlink(missing_ok=True)
    other = create_key(file, "b", KeyScope.QUERY)
    assert ring.find(other) is not None
    assert ring.find(token) is None
    assert ring.trouble is None


def test_a_change_within_the_file_is_seen(file: Path) -> None:
    create_key(file, "a", KeyScope.QUERY)
    ring = KeyRing(file)
    file.write_text(file.read_text().replace('"a"', '"longer"'))
    assert ring.named("longer") is not None


def test_changes_at_the_same_time_all_count(file: Path) -> None:
    names = [f"key-{number}" for number in range(8)]
    threads = [threading.Thread(target=create_key, args=(file, name, KeyScope.QUERY)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(key.name for key in read_keys(file)) == names


def test_a_link_to_the_file_stays_one(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.json"
    create_key(file, "a", KeyScope.QUERY)
    link.symlink_to(file)
    create_key(link, "b", KeyScope.QUERY)
    assert link.is_symlink()
    assert [key.name for key in read_keys(file)] == ["a", "b"]


def test_a_change_that_cannot_be_written_changes_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create_key(file, "a", KeyScope.QUERY)
    before = file.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("service.keys.os.fsync", full)
    with pytest.raises(KeysError, match="cannot be written: No space left"):
        create_key(file, "b", KeyScope.QUERY)
    assert file.read_bytes() == before
    assert sorted(one.name for one in file.parent.iterdir()) == [".keys.json.lock", "keys.json"]
    with pytest.raises(KeysError, match="cannot be written: No such file"):
        create_key(file.parent / "nowhere" / "keys.json", "b", KeyScope.QUERY)
