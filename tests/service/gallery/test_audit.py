"""The audit log: on disk before the act, readable by nobody who does not know the names, never torn."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from service.gallery import audit as audit_module
from service.gallery.audit import Act, Audit
from service.gallery.records import GalleryFull, GalleryUnavailable
from tests.service.gallery.cases import crop_id, until

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
ENROL = Act("enrol", "gate", (crop_id(1), "anna"), 1)


@pytest.fixture
def audit(tmp_path: Path) -> Iterator[Audit]:
    with Audit.open(tmp_path, lambda: NOON) as opened:
        yield opened


def lines(folder: Path, day: str = "2026-11-22") -> list[dict[str, Any]]:
    path = folder / "audit" / f"{day}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_an_act_is_on_disk_before_it_is_done(tmp_path: Path, audit: Audit) -> None:
    def work(factor: int) -> int:
        assert lines(tmp_path) == [
            {
                "at": "2026-11-22T12:00:00.000+00:00",
                "actor": "gate",
                "action": "enrol",
                "count": 1,
                "ids": [audit.pseudonym(crop_id(1)), audit.pseudonym("anna")],
            }
        ]
        return 2 * factor

    assert audit.perform(ENROL, work, 21) == 42
    assert len(lines(tmp_path)) == 1


def test_an_act_that_fails_is_said_to_have(tmp_path: Path) -> None:
    def fail() -> None:
        raise LookupError

    with Audit.open(tmp_path, lambda: NOON) as audit, pytest.raises(LookupError):
        audit.perform(ENROL, fail)
    assert [line.get("failed") for line in lines(tmp_path)] == [None, True]


def test_names_are_not_in_the_log_and_can_be_looked_up(tmp_path: Path, audit: Audit) -> None:
    audit.record(ENROL)
    text = (tmp_path / "audit" / "2026-11-22.jsonl").read_text()
    assert "anna" not in text
    assert crop_id(1) not in text
    (line,) = lines(tmp_path)
    assert [len(pseudonym) for pseudonym in line["ids"]] == [64, 64]
    other = tmp_path / "other"
    other.mkdir()
    with Audit.open(other) as elsewhere:
        assert elsewhere.pseudonym("anna") != line["ids"][1]
    with Audit.open(tmp_path) as again:
        assert again.pseudonym("anna") == line["ids"][1]


def test_nobody_else_may_read_it(tmp_path: Path, audit: Audit) -> None:
    audit.record(ENROL)
    folder = tmp_path / "audit"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {
        "secret": 0o600,
        "2026-11-22.jsonl": 0o600,
    }


def test_a_note_is_written_soon_with_a_record_and_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    query = Act("query", "anonymous", count=3)
    with Audit.open(tmp_path, lambda: NOON) as audit:
        audit.note(query)
        assert lines(tmp_path) == []
        audit.record(ENROL)
        assert [line["action"] for line in lines(tmp_path)] == ["query", "enrol"]
        audit.note(query)
    assert [line["count"] for line in lines(tmp_path)] == [3, 1, 3]
    monkeypatch.setattr(audit_module, "FLUSH_SECONDS", 0.001)
    with Audit.open(tmp_path, lambda: NOON) as audit:
        audit.note(query)
        until(lambda: len(lines(tmp_path)) == 4)


def test_each_day_has_its_file(tmp_path: Path) -> None:
    now = NOON
    with Audit.open(tmp_path, lambda: now) as audit:
        audit.note(ENROL)
        now = NOON + timedelta(days=1)
        audit.note(ENROL)
        audit.record(ENROL)
    assert (len(lines(tmp_path)), len(lines(tmp_path, "2026-11-23"))) == (1, 2)


def test_records_that_wait_together_share_one_fsync(
    tmp_path: Path, audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit.record(ENROL)  # makes the file
    syncs: list[int] = []
    first, go_on = threading.Event(), threading.Event()
    fsync = os.fsync

    def slow(descriptor: int) -> None:
        syncs.append(descriptor)
        first.set()
        assert go_on.wait(30)
        fsync(descriptor)

    monkeypatch.setattr("service.gallery.audit.os.fsync", slow)
    with ThreadPoolExecutor(20) as pool:
        records = [pool.submit(audit.record, ENROL)]
        assert first.wait(30)
        records += [pool.submit(audit.record, ENROL) for _ in range(19)]
        until(lambda: len(audit._waiting) == 20)  # the first one still counts
        go_on.set()
        for record in records:
            record.result(30)
    assert len(syncs) == 2
    assert len(lines(tmp_path)) == 21


def test_half_a_line_does_not_spoil_the_next(tmp_path: Path) -> None:
    with Audit.open(tmp_path, lambda: NOON) as audit:
        audit.record(ENROL)
    path = tmp_path / "audit" / "2026-11-22.jsonl"
    path.write_bytes(path.read_bytes() + b'{"at": "2026-11-22T')
    with Audit.open(tmp_path, lambda: NOON) as audit:
        audit.record(ENROL)
        audit.record(ENROL)
    whole = path.read_text().splitlines()
    assert len(whole) == 4
    assert [json.loads(whole[n])["actor"] for n in (0, 2, 3)] == ["gate"] * 3


@pytest.mark.parametrize(
    ("number", "kind", "message"),
    [
        (errno.ENOSPC, GalleryFull, "cannot grow: the disk is full; free space"),
        (errno.EIO, GalleryUnavailable, "cannot be written: Input/output error"),
    ],
)
def test_what_cannot_be_recorded_is_not_done(
    tmp_path: Path,
    audit: Audit,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    kind: type[GalleryUnavailable],
    message: str,
) -> None:
    audit.record(ENROL)
    before = lines(tmp_path)
    done: list[int] = []

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr("service.gallery.audit.os.fsync", fail)
        with pytest.raises(kind, match=message):
            audit.perform(ENROL, done.append, 1)
        audit.note(Act("query", "anonymous"))
    assert done == []
    assert lines(tmp_path) == before  # not even the line that could not be synced
    audit.record(Act("erase", "anonymous"))
    assert [line["action"] for line in lines(tmp_path)] == ["enrol", "query", "erase"]


def test_notes_that_the_disk_does_not_take_are_counted(
    tmp_path: Path, audit: Audit, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(audit_module, "MOST_WAITING", 3)
    for _ in range(5):
        audit.note(ENROL)
    audit.record(ENROL)
    assert len(lines(tmp_path)) == 4
    assert "lacks 2 lines" in caplog.text


def test_a_damaged_secret_is_an_error(tmp_path: Path) -> None:
    with Audit.open(tmp_path):
        pass
    (tmp_path / "audit" / "secret").write_bytes(b"short")
    with pytest.raises(GalleryUnavailable, match="is damaged; restore it"):
        Audit.open(tmp_path)
