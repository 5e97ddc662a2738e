"""Retention: what is too old goes, for good and on record; a clock that jumps does not eat the gallery."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from service.cli.commands import command_line
from service.gallery import retention as retention_module
from service.gallery.audit import Audit
from service.gallery.gallery import Gallery
from service.gallery.records import Filters, GalleryUnavailable, QueryOptions
from service.gallery.retention import (
    CONFIRMATION_NAME,
    Purge,
    Retention,
    RetentionThread,
    confirm_purge,
    past_retention,
)
from service.settings import Settings
from tests.eventually import until
from tests.service.gallery.cases import crop_id, new_crop, open_gallery, units
from tests.serving import serve

DAYS = 30
START = datetime(2026, 1, 1, tzinfo=UTC)
VECTORS = units(np.random.default_rng(0), 100)


class Clock:
    """Shows what it was set to."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of enrolments and of retention."""
    shown = Clock()

    class Now(datetime):
        @classmethod
        def now(cls, *_: object) -> datetime:  # type: ignore[override]
            return shown.now

    monkeypatch.setattr("service.gallery.store.datetime", Now)
    return shown


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[Gallery]:
    with open_gallery(tmp_path) as opened:
        yield opened


@pytest.fixture
def retention(gallery: Gallery, tmp_path: Path, clock: Clock) -> Iterator[Retention]:
    with Audit.open(tmp_path, clock) as audit:
        yield Retention(gallery._store.database, gallery._index.apply, audit, DAYS, clock)


def enrol(gallery: Gallery, first: int, count: int) -> None:
    gallery.enrol([new_crop(n, VECTORS[n]) for n in range(first, first + count)])


def left(gallery: Gallery) -> set[str]:
    return {crop.crop_id for crop in gallery.page(Filters(), 1000, None).crops}


def test_what_is_too_old_goes(tmp_path: Path, gallery: Gallery, retention: Retention, clock: Clock) -> None:
    enrol(gallery, 0, 3)
    clock.now = START + timedelta(days=10)
    enrol(gallery, 3, 17)
    clock.now = START + timedelta(days=DAYS)
    assert retention.run() == Purge(0, 0)  # not older, only as old
    clock.now += timedelta(microseconds=1)
    assert retention.run() == Purge(3, 0)
    assert retention.warning is None
    assert left(gallery) == {crop_id(n) for n in range(3, 20)}
    assert gallery.query(VECTORS[:1], QueryOptions()).searched == 17
    for path in tmp_path.glob("gallery.db*"):
        assert np.float16(VECTORS[1]).tobytes() not in path.read_bytes()
    assert retention.run() == Purge(0, 0)


def test_every_erasure_is_on_record(tmp_path: Path, gallery: Gallery, retention: Retention, clock: Clock) -> None:
    enrol(gallery, 0, 2)
    clock.now += timedelta(days=1)
    enrol(gallery, 2, 18)
    clock.now = START + timedelta(days=DAYS, hours=1)
    retention.run()
    (line,) = [
        json.loads(text) for text in (tmp_path / "audit" / f"{clock.now:%Y-%m-%d}.jsonl").read_text().splitlines()
    ]
    assert (line["actor"], line["action"], line["count"]) == ("retention", "expire", 2)
    assert line["ids"] == [retention._audit.pseudonym(crop_id(n)) for n in range(2)]


def test_a_long_purge_is_done_in_parts(
    gallery: Gallery, retention: Retention, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention_module, "ERASED_AT_ONCE", 4)
    enrol(gallery, 0, 10)
    clock.now += timedelta(days=1)
    enrol(gallery, 10, 90)
    clock.now = START + timedelta(days=DAYS, hours=1)
    assert retention.run() == Purge(10, 0)
    assert gallery.crop_count == 90


def test_a_clock_that_jumps_does_not_eat_the_gallery(
    tmp_path: Path, gallery: Gallery, retention: Retention, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    enrol(gallery, 0, 20)
    clock.now += timedelta(days=3650)
    assert retention.run() == Purge(0, 20)
    assert retention.warning is not None
    assert "`resight maintain --confirm`" in retention.warning
    assert retention.warning in caplog.messages
    clock.now = START + timedelta(days=1)  # it is put right
    assert retention.run() == Purge(0, 0)
    assert retention.warning is None
    assert gallery.crop_count == 20


@pytest.mark.parametrize(("old", "held"), [(20, False), (21, True)])
def test_just_over_a_fifth_waits(gallery: Gallery, retention: Retention, clock: Clock, old: int, held: bool) -> None:
    enrol(gallery, 0, old)
    clock.now += timedelta(days=1)
    enrol(gallery, old, 100 - old)
    clock.now = START + timedelta(days=DAYS, hours=1)
    assert retention.run() == (Purge(0, old) if held else Purge(old, 0))


def test_a_confirmation_lets_go_of_what_was_seen_and_of_no_more(
    tmp_path: Path, gallery: Gallery, retention: Retention, clock: Clock
) -> None:
    enrol(gallery, 0, 10)
    clock.now += timedelta(days=5)
    enrol(gallery, 10, 10)
    clock.now = START + timedelta(days=DAYS + 1)
    seen = past_retention(tmp_path, DAYS, clock)
    assert (seen.old, seen.crops, seen.too_many) == (10, 20, True)
    confirm_purge(tmp_path, seen)
    clock.now += timedelta(days=3650)  # now the others are too old, too: nobody has seen that
    assert retention.run() == Purge(10, 10)
    assert left(gallery) == {crop_id(n) for n in range(10, 20)}
    assert not (tmp_path / CONFIRMATION_NAME).exists()  # it holds once
    assert retention.run() == Purge(0, 10)


@pytest.mark.parametrize("content", [b"", b"soon", b"\xff", b"9" * 40])
def test_a_damaged_confirmation_confirms_nothing(
    tmp_path: Path, gallery: Gallery, retention: Retention, clock: Clock, content: bytes
) -> None:
    enrol(gallery, 0, 5)
    clock.now += timedelta(days=DAYS + 1)
    (tmp_path / CONFIRMATION_NAME).write_bytes(content)
    assert retention.run() == Purge(0, 5)


def test_a_run_that_fails_is_tried_again(
    tmp_path: Path,
    gallery: Gallery,
    retention: Retention,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    enrol(gallery, 0, 1)
    clock.now += timedelta(days=1)
    enrol(gallery, 1, 9)
    clock.now = START + timedelta(days=DAYS, hours=1)
    monkeypatch.setattr(retention_module, "CHECK_SECONDS", 0.001)
    fails = [GalleryUnavailable("The disk is away."), GalleryUnavailable("The disk is away.")]
    run: Callable[[], Purge] = retention.run

    def sometimes() -> Purge:
        if fails:
            raise fails.pop()
        return run()

    monkeypatch.setattr(retention, "run", sometimes)
    thread = RetentionThread(retention, tmp_path)
    try:
        until(lambda: gallery.crop_count == 9)
    finally:
        thread.close()
    assert caplog.text.count("gallery-retention failed") == 2


def test_the_thread_runs_hourly_and_when_something_was_confirmed(
    tmp_path: Path, gallery: Gallery, retention: Retention, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention_module, "CHECK_SECONDS", 0.001)
    enrol(gallery, 0, 5)
    clock.now += timedelta(days=DAYS + 1)
    thread = RetentionThread(retention, tmp_path)
    try:
        until(lambda: retention.warning is not None)
        confirm_purge(tmp_path, past_retention(tmp_path, DAYS, clock))
        until(lambda: gallery.crop_count == 0)
    finally:
        thread.close()


def resight(*arguments: object) -> Result:
    return CliRunner().invoke(command_line(), [str(argument) for argument in arguments])


def test_the_command_shows_and_confirms(tmp_path: Path, gallery: Gallery, retention: Retention, clock: Clock) -> None:
    enrol(gallery, 0, 5)  # months before the real clock, which the command reads
    url = f"sqlite:///{tmp_path}"
    shown = resight("maintain", "--gallery", url, "--retention-days", DAYS)
    assert shown.exit_code == 0
    assert shown.stdout.startswith("5 of 5 crops were enrolled before ")
    assert "say --confirm" in shown.stdout
    assert not (tmp_path / CONFIRMATION_NAME).exists()
    assert resight("maintain", "--gallery", url, "--retention-days", DAYS, "--confirm").exit_code == 0
    clock.now = datetime.now(UTC)
    assert retention.run() == Purge(5, 0)


def test_where_nothing_is_too_old_nothing_is_confirmed(tmp_path: Path, gallery: Gallery) -> None:
    command = ("maintain", "--gallery", f"sqlite:///{tmp_path}", "--retention-days", DAYS, "--confirm")
    assert resight(*command).stdout.splitlines()[1:] == ["There is nothing to confirm."]
    assert json.loads(resight(*command, "--json").stdout)["confirmed"] is False
    assert not (tmp_path / CONFIRMATION_NAME).exists()


def test_the_command_says_what_it_lacks(tmp_path: Path) -> None:
    no_days = resight("maintain", "--gallery", f"sqlite:///{tmp_path}")
    assert (no_days.exit_code, no_days.stdout) == (2, "")
    assert "say --retention-days or RESIGHT_RETENTION_DAYS as" in no_days.stderr
    no_gallery = resight("maintain", "--gallery", f"sqlite:///{tmp_path}", "--retention-days", DAYS, "--confirm")
    assert no_gallery.exit_code == 2
    assert no_gallery.stderr.startswith(f"There is no gallery in {tmp_path}")


def test_a_service_says_that_a_purge_waits(make_settings: Callable[..., Settings], tmp_path: Path) -> None:
    with serve(make_settings(retention_days=DAYS)) as served:
        retention = served.runtime.retention
        assert retention is not None
        assert served.client.get("/readyz").json()["warnings"] == []
        retention._waiting = 7
        (warning,) = served.client.get("/readyz").json()["warnings"]
        assert warning.startswith("7 crops are older than 30 days")
