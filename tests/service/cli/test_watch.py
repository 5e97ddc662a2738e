from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.cli.items import Layout
from service.cli.watching import Unseen, Watcher, crop_id_of
from service.client import Resight
from service.settings import Settings
from tests.drawn_crops import crop
from tests.eventually import until
from tests.service.cli.running import RESIGHT, resight
from tests.serving import Served, serve


def seen(watcher: Watcher, now: float) -> list[tuple[str, str | None, str | None]]:
    found = watcher.look(now)
    for one in found:
        watcher.done(one)
    return [(one.item.name, one.item.identity, one.item.camera) for one in found]


def test_a_picture_is_seen_once_it_has_stayed_the_same_for_a_second(tmp_path: Path) -> None:
    watcher = Watcher(tmp_path)
    growing = tmp_path / "a.jpg"
    growing.write_bytes(b"1")
    assert seen(watcher, 0.0) == []
    growing.write_bytes(b"12")
    assert seen(watcher, 1.5) == []
    assert seen(watcher, 2.0) == []
    assert watcher.waiting == 1
    assert seen(watcher, 2.6) == [("a.jpg", None, None)]
    assert seen(watcher, 9.0) == []
    growing.write_bytes(b"123")
    assert seen(watcher, 10.0) == []
    assert seen(watcher, 11.0) == [("a.jpg", None, None)]


def test_what_is_not_enrolled_is_seen_again(tmp_path: Path) -> None:
    watcher = Watcher(tmp_path, settled=0)
    (tmp_path / "a.jpg").write_bytes(b"1")
    [first] = watcher.look(0)
    [again] = watcher.look(1)
    assert first.stamp == again.stamp


def test_names_that_are_none_of_a_finished_picture_are_passed_over(tmp_path: Path) -> None:
    for name in (".a.jpg", "a.jpg.part", "notes.txt", ".tmp/a.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    (tmp_path / "empty.jpg").touch()
    watcher = Watcher(tmp_path, settled=0)
    assert seen(watcher, 0) == []
    os.rename(tmp_path / "a.jpg.part", tmp_path / "a.jpg")
    assert seen(watcher, 1) == [("a.jpg", None, None)]


def test_labels_come_from_folders_and_names(tmp_path: Path) -> None:
    for name in (
        "0002_c1s1_000451_03.jpg",
        "-1_c1s1_000451_03.jpg",
        "anna/1.jpg",
        "anna/0007_c3s1_000001_00.jpg",
        "x.png",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    watcher = Watcher(tmp_path, settled=0)
    assert seen(watcher, 0) == [
        ("0002_c1s1_000451_03.jpg", "0002", "c1"),
        ("anna/0007_c3s1_000001_00.jpg", "anna", "c3"),
        ("anna/1.jpg", "anna", None),
        ("x.png", None, None),
    ]
    assert watcher.junk == 1
    given = Watcher(tmp_path, identity="ben", camera="door", settled=0)
    assert {found[1:] for found in seen(given, 0)} == {("ben", "door")}
    plain = Watcher(tmp_path, Layout.FILES, settled=0)
    assert {found[1:] for found in seen(plain, 0)} == {(None, None)}
    market = Watcher(tmp_path, Layout.MARKET1501, settled=0)
    assert [found[1] for found in seen(market, 0)] == ["0002", "0007"]


def test_rows_of_a_table_wait_for_their_pictures(tmp_path: Path) -> None:
    table = tmp_path / "crops.csv"
    table.write_text("path,identity,camera\na.jpg,anna,c1\nb.jpg,ben,c2\n")
    (tmp_path / "a.jpg").write_bytes(b"1")
    watcher = Watcher(table, settled=0)
    assert seen(watcher, 0) == [("a.jpg", "anna", "c1")]
    (tmp_path / "b.jpg").write_bytes(b"1")
    assert seen(watcher, 1) == [("b.jpg", "ben", "c2")]
    table.write_text("path,identity,camera\na.jpg,anna,c1\nb.jpg,ben,c2\nc.jpg,an")  # a line that is being written
    (tmp_path / "c.jpg").write_bytes(b"1")
    slow = Watcher(table)
    assert seen(slow, 2) == []
    assert [found[0] for found in seen(slow, 3)] == ["a.jpg", "b.jpg"]
    assert seen(slow, 4) == [("c.jpg", "an", None)]  # it has stayed so: it is the last line
    table.write_text("paht\n")
    with pytest.raises(Unseen, match="has unknown columns"):
        watcher.look(5)


def test_a_folder_that_goes_away_is_no_end(tmp_path: Path) -> None:
    with pytest.raises(Unseen, match="cannot be read now"):
        Watcher(tmp_path / "gone").look(0)


def test_the_crop_id_is_the_service_s(service: Served) -> None:
    with Resight(service.url) as client:
        [enrolled] = client.enrol(crop(1)).results
    assert enrolled.crop_id == crop_id_of(crop(1))


class Watching:
    """`resight watch` in a process of its own."""

    def __init__(self, *arguments: str | Path) -> None:
        command = [*RESIGHT, "watch", "--every", "0.1", *map(str, arguments)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.said = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said += line

    def stop(self, number: int = signal.SIGINT) -> str:
        """Ends it; the summary."""
        self.process.send_signal(number)
        assert self.process.stdout is not None
        summary = self.process.stdout.read()
        self.process.wait(30)
        self._reader.join(30)
        assert "Traceback" not in self.said
        return summary


@contextmanager
def watching(*arguments: str | Path) -> Iterator[Watching]:
    running = Watching(*arguments)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait(30)
        if running.process.stdout is not None:
            running.process.stdout.close()
        running._reader.join(30)
        if running.process.stderr is not None:
            running.process.stderr.close()


def ids(url: str) -> dict[str, str | None]:
    with Resight(url) as client:
        return {one.crop_id: one.identity for one in client.crops()}


def test_dropped_crops_are_enrolled_and_what_is_corrected_stays(service: Served, tmp_path: Path) -> None:
    folder = tmp_path / "dropped"
    folder.mkdir()
    (folder / "0001_c1s1_000001_00.jpg").write_bytes(crop(1))
    with watching(folder, "--url", service.url) as running:
        until(lambda: len(ids(service.url)) == 1, 60)
        (folder / "bad.jpg").write_bytes(b"no picture")
        (folder / "anna").mkdir()
        (folder / "anna" / ".2.jpg").write_bytes(crop(2))
        (folder / "anna" / ".2.jpg").rename(folder / "anna" / "2.jpg")
        until(lambda: ids(service.url).get(crop_id_of(crop(2))) == "anna", 60)
        until(lambda: "bad.jpg: " in running.said, 60)
        time.sleep(0.5)
        assert running.said.count("bad.jpg: ") == 1
        assert running.stop() == ("Stopped: 2 created, 0 duplicate, 0 updated, 1 failed, 0 in the gallery before\n")
        assert running.process.returncode == 1
    (folder / "bad.jpg").unlink()
    with Resight(service.url) as client:
        client.correct(crop_id_of(crop(1)), identity="corrected")
    with watching(folder, "--url", service.url, "--json") as again:
        until(lambda: "2 in the gallery already" in again.said, 60)
        (folder / "3.png").write_bytes(crop(3))
        until(lambda: len(ids(service.url)) == 3, 60)
        until(lambda: "1 created" in again.said, 60)
        [record] = [json.loads(line) for line in again.stop(signal.SIGTERM).splitlines()]
        assert again.process.returncode == 0
    assert (record["source"], record["status"]) == ("3.png", "created")
    assert "2 in the gallery before" in again.said
    assert ids(service.url)[crop_id_of(crop(1))] == "corrected"
    assert sorted(path.name for path in folder.iterdir()) == ["0001_c1s1_000001_00.jpg", "3.png", "anna"]


@pytest.mark.slow
def test_a_service_that_is_away_is_waited_for(make_settings: Callable[..., Settings], tmp_path: Path) -> None:
    folder = tmp_path / "dropped"
    folder.mkdir()
    options = [
        "--model",
        str(make_settings().model),
        "--gallery",
        f"sqlite:///{tmp_path / 'g'}",
        "--log-level",
        "error",
    ]
    with serve(make_settings(log_level="error")) as first:
        port = first.url.rpartition(":")[2]
    (folder / "1.png").write_bytes(crop(1))
    with watching(folder, "--url", first.url) as running:
        until(lambda: "Nothing answers at" in running.said, 60)
        with subprocess.Popen([*RESIGHT, "serve", "--port", port, *options], stdout=subprocess.DEVNULL) as served:
            try:
                until(lambda: resight("model", "--url", first.url).exit_code == 0, 60)
                until(lambda: "1 created" in running.said, 60)
                until(lambda: "All is well again." in running.said, 60)
            finally:
                served.send_signal(signal.SIGINT)
                served.wait(30)
        assert running.said.count("Nothing answers at") == 1
        assert "1 created" in running.stop()


def test_a_tracker_that_writes_slowly_and_in_any_order_loses_nothing(service: Served, tmp_path: Path) -> None:
    folder = tmp_path / "dropped"
    folder.mkdir()
    pictures = {f"{number:02}.png": crop(number) for number in range(20)}
    with watching(folder, "--url", service.url) as running:
        for name, data in random.Random(1).sample(sorted(pictures.items()), len(pictures)):
            with (folder / name).open("wb", buffering=0) as file:
                half = len(data) // 2
                file.write(data[:half])
                time.sleep(0.03)
                file.write(data[half:])
        until(lambda: len(ids(service.url)) == 20, 60)
        summary = running.stop()
    assert re.match(r"Stopped: 20 created, 0 duplicate, 0 updated, 0 failed", summary)


def test_what_cannot_be_watched_is_told(tmp_path: Path) -> None:
    cases: list[tuple[list[str | Path], str]] = [
        ([tmp_path / "gone"], "is no folder and no .csv file"),
        ([tmp_path, "--layout", "csv"], "--layout csv does not fit"),
        ([tmp_path, "--every", "0"], "greater than or equal to 0.1"),
        ([tmp_path, "--url", "nowhere"], "is no URL"),
        ([""], "an empty name"),
    ]
    for arguments, reason in cases:
        result = resight("watch", *arguments)
        assert (result.exit_code, reason in result.stderr) == (2, True), result.stderr
