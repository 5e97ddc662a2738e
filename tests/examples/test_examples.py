"""The examples, run as a user runs them, against a real service and drawn people."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from service.client import Resight
from service.settings import Settings
from tests.drawn_crops import person
from tests.serving import Served, serve

ROOT = Path(__file__).parents[2]


@pytest.fixture
def served(make_settings: Callable[..., Settings]) -> Iterator[Served]:
    """A running service that knows what a match is among drawn people."""
    with serve(make_settings(match_distance=0.05)) as service:
        yield service


def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "examples" / name), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, cwd=ROOT)


def draw_track(folder: Path, name: str, number: int, views: range) -> None:
    (folder / name).mkdir(parents=True)
    for view in views:
        person(number, view).save(folder / name / f"{view:03d}.png")


def test_a_track_is_matched_or_enrolled_as_somebody_new(served: Served, tmp_path: Path) -> None:
    for track, number, views in (("t1", 1, range(3)), ("t2", 12, range(3)), ("t3", 1, range(3, 15))):
        draw_track(tmp_path / "tracks", track, number, views)
    done = run("tracker_loop.py", tmp_path / "tracks", "--camera", "c1", "--url", served.url)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [(line[0], line[2]) for line in lines] == [("t1", "new"), ("t2", "new"), ("t3", "known")]
    assert lines[0][1] == lines[2][1] != lines[1][1]
    with Resight(served.url) as resight:
        crops = list(resight.crops(identity=lines[0][1]))
    assert [crop.track for crop in crops].count("t3") == 8  # of twelve shots, spread
    assert {crop.camera for crop in crops} == {"c1"}


def test_frames_and_boxes_become_a_gallery(served: Served, tmp_path: Path) -> None:
    frames = tmp_path / "img1"
    frames.mkdir()
    lines = []
    for frame in range(1, 7):
        picture = Image.new("RGB", (320, 180), (118 + frame, 122, 126))
        picture.paste(person(1, frame), (10 * frame, 20))
        picture.paste(person(12, frame), (200, 30))
        picture.save(frames / f"{frame:06d}.png")
        lines.append(f"{frame},1,{10 * frame},20,64,128,1,1,1.0")
        lines.append(f"{frame},2,200.4,30,64,128,0.9,-1,-1,-1")
        lines.append(f"{frame},3,0,0,64,128,0.1,-1,-1,-1")  # not sure enough
        lines.append(f"{frame},4,0,0,8,16,1,-1,-1,-1")  # too small
    lines.append("6,-1,-30,20,128,128,1,-1,-1,-1")  # a detection without a track, over the edge
    boxes = tmp_path / "gt.txt"
    boxes.write_text("\n".join(lines))
    options = ("--camera", "c7", "--every", 3, "--begins", "2026-11-01T10:00:00+00:00", "--url", served.url)
    done = run("mot_to_gallery.py", boxes, frames, *options)
    assert (done.returncode, done.stdout) == (0, "5 created\n"), done.stderr
    with Resight(served.url) as resight:
        crops = list(resight.crops())
        assert [crop.track for crop in crops] == ["1", "2", "1", "2", None]
        assert {(crop.camera, crop.identity) for crop in crops} == {("c7", None)}
        assert crops[2].meta == {"frame": 4, "box": [40, 20, 104, 148]}
        assert crops[2].captured_at is not None
        assert crops[2].captured_at.isoformat() == "2026-11-01T10:00:00.120000+00:00"
        first = resight.query(person(1, 9), top_k=1).matches[0]
        assert resight.crop(first.crop_id).track == "1"
    assert run("mot_to_gallery.py", boxes, frames, *options).stdout == "5 duplicate\n"


def test_crops_without_a_name_get_the_one_of_their_track(served: Served, tmp_path: Path) -> None:
    """What mot_to_gallery.py enrols and tracker_loop.py follows is one person under one name."""
    with Resight(served.url) as resight:
        resight.enrol([person(1, view) for view in range(20, 23)], camera="c7", track="1")
    for track, number, views in (("t1", 1, range(3)), ("t2", 12, range(3)), ("t3", 1, range(3, 6))):
        draw_track(tmp_path / "tracks", track, number, views)
    done = run("tracker_loop.py", tmp_path / "tracks", "--camera", "c1", "--url", served.url)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [(line[0], line[2]) for line in lines] == [("t1", "named"), ("t2", "new"), ("t3", "known")]
    assert lines[0][1] == lines[2][1] != lines[1][1]
    with Resight(served.url) as resight:
        assert {crop.track for crop in resight.crops(identity=lines[0][1])} == {"1", "t1", "t3"}
        assert not list(resight.crops(unidentified=True))


def test_one_name_below_the_distance_is_who_it_is_beside_crops_without_one(served: Served, tmp_path: Path) -> None:
    with Resight(served.url) as resight:
        resight.enrol(person(1, 20), identity="anna")
        resight.enrol([person(1, 21), person(1, 22)])
        draw_track(tmp_path / "tracks", "t1", 1, range(3))
        done = run("tracker_loop.py", tmp_path / "tracks", "--camera", "c1", "--url", served.url)
        assert done.stdout.split()[:3] == ["t1", "anna", "known"], done.stderr
        twins = [person(1, view) for view in (0, 1, 2, 20)]
        for twin in twins:
            twin.putpixel((0, 0), (0, 0, 0))  # another picture, hardly any farther
        resight.enrol(twins, identity="ben")
        draw_track(tmp_path / "later", "t2", 1, range(3, 6))
        done = run("tracker_loop.py", tmp_path / "later", "--camera", "c1", "--url", served.url)
        assert done.stdout.split()[:3] == ["t2", "-", "ambiguous"], done.stderr


def test_a_track_without_pictures_or_with_a_bad_one_stops_no_other(served: Served, tmp_path: Path) -> None:
    tracks = tmp_path / "tracks"
    (tracks / "t0").mkdir(parents=True)
    (tracks / "t0" / "notes.txt").write_text("nobody")
    (tracks / "t1").mkdir()
    (tracks / "t1" / "1.jpg").write_bytes(b"no picture")
    draw_track(tracks, "t2", 1, range(2))
    done = run("tracker_loop.py", tracks, "--camera", "c1", "--url", served.url)
    assert (done.returncode, done.stdout.split()[:1]) == (0, ["t2"])
    assert "t0: no pictures, skipped" in done.stderr
    assert "t1: " in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_given_wrong_is_told_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "det.txt").write_text("1,-1,0,0,64,128,1\n1;2;3\n")
    (tmp_path / "gt.txt").write_text("1,1,0,0,64,128,1\n")
    (tmp_path / "odd.txt").write_text("1,1,0,0,nan,128,1\n")
    gt, nowhere, camera = tmp_path / "gt.txt", tmp_path / "nowhere", ("--camera", "c1")
    draw_track(tmp_path / "img1", "t1", 1, range(1))
    person(1, 1).save(tmp_path / "img1" / "000001.png")
    told = [
        (("mot_to_gallery.py", tmp_path / "det.txt", tmp_path, *camera), "det.txt, line 2: frame,id,left"),
        (("mot_to_gallery.py", tmp_path / "odd.txt", tmp_path, *camera), "odd.txt, line 1: frame,id,left"),
        (("mot_to_gallery.py", nowhere, tmp_path, *camera), "No such file or directory"),
        (("mot_to_gallery.py", gt, nowhere, *camera), "No such file or directory"),
        (("mot_to_gallery.py", gt, tmp_path, *camera), "has no frame 1: a file such as 000001.jpg"),
        (("mot_to_gallery.py", gt, tmp_path, *camera, "--begins", "2026-11-01T10:00:00"), "has no zone"),
        (("mot_to_gallery.py", gt, tmp_path, *camera, "--begins", "noon"), "'noon' is no time"),
        (("mot_to_gallery.py", gt, tmp_path, *camera, "--every", "0"), "--every is 1 or more"),
        (("mot_to_gallery.py", gt, tmp_path, *camera, "--rate", "0"), "is not above zero"),
        (("mot_to_gallery.py", gt, tmp_path / "img1", *camera, "--url", "here"), "is no URL"),
        (("tracker_loop.py", nowhere, *camera), "No such file or directory"),
        (("tracker_loop.py", tmp_path / "img1" / "t1", *camera), "has no folders"),
        (("tracker_loop.py", tmp_path / "img1", *camera, "--url", "here"), "is no URL"),
    ]
    for (name, *arguments), sentence in told:
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(ROOT / "examples" / str(name)))["main"]([*map(str, arguments)])
        assert stopped.value.code not in (0, None)
        assert sentence in f"{stopped.value.code} {capsys.readouterr().err}"
