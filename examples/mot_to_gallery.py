"""A detector-tracker's output into the gallery: MOTChallenge text and a folder of frames.

    .venv/bin/python examples/mot_to_gallery.py gt/gt.txt img1 --camera c1 --every 10

A line of the text is `frame,id,left,top,width,height,confidence,…`; `img1/000001.jpg` is frame 1. Crops are enrolled
without identity and with their track's id as `track`, so that a person, or a query, can say who that is.
Plain detections (`det.txt`) have the id -1, and so no track.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import inf, isfinite
from pathlib import Path

from PIL import Image

from service.client import DEFAULT_URL, NewCrop, Resight, ResightError

PICTURES = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True)
class Box:
    """One detection; `track` is None where the file has -1."""

    frame: int
    track: str | None
    left: float
    top: float
    width: float
    height: float


def read_boxes(path: Path, least_confidence: float) -> list[Box]:
    """The boxes of a MOTChallenge file. Raises ValueError with the line that is none."""
    boxes = []
    with path.open(newline="") as file:
        for number, row in enumerate(csv.reader(file), 1):
            try:
                frame, track, left, top, width, height, confidence = [float(cell) for cell in row[:7]]
                box = Box(int(frame), None if track < 0 else str(int(track)), left, top, width, height)
                if not all(map(isfinite, (left, top, width, height))):
                    raise ValueError("not a number of pixels")
            except (ValueError, OverflowError) as error:
                raise ValueError(
                    f"{path}, line {number}: frame,id,left,top,width,height,confidence is needed"
                ) from error
            if confidence >= least_confidence:
                boxes.append(box)
    return boxes


def chosen(boxes: Iterable[Box], every: int, smallest: int) -> dict[int, list[Box]]:
    """By frame, each track's every so manyth box of at least so many pixels' height."""
    seen: dict[str | None, int] = defaultdict(int)
    by_frame: dict[int, list[Box]] = defaultdict(list)
    for box in sorted(boxes, key=lambda box: box.frame):
        if box.height < smallest:
            continue
        if seen[box.track] % every == 0 or box.track is None:
            by_frame[box.frame].append(box)
        seen[box.track] += 1
    return by_frame


def files_of(frames: Path, needed: Iterable[int]) -> dict[int, Path]:
    """The picture of each frame. Raises ValueError where one that is needed is not there."""
    pictures = (path for path in frames.iterdir() if path.suffix.lower() in PICTURES)
    files = {int(path.stem): path for path in pictures if path.stem.isdecimal()}
    for frame in needed:
        if frame not in files:
            raise ValueError(f"{frames} has no frame {frame}: a file such as {frame:06d}.jpg is needed")
    return files


def crops_of(
    by_frame: dict[int, list[Box]], files: dict[int, Path], camera: str, begins: datetime | None, rate: float
) -> Iterator[NewCrop]:
    """The crops, cut as they are needed: a frame is read once, and one is in memory at a time."""
    for frame, boxes in by_frame.items():
        captured_at = None if begins is None else begins + timedelta(seconds=(frame - 1) / rate)
        with Image.open(files[frame]) as opened:
            picture = opened.convert("RGB")
        for box in boxes:
            edges = (box.left, box.top, box.left + box.width, box.top + box.height)
            left, top, right, bottom = map(round, edges)
            inside = (max(left, 0), max(top, 0), min(right, picture.width), min(bottom, picture.height))
            if inside[0] < inside[2] and inside[1] < inside[3]:
                name = f"{files[frame].name}#{box.track or 'detection'}"
                meta = {"frame": frame, "box": [left, top, right, bottom]}
                crop = picture.crop(inside)
                yield NewCrop(crop, camera=camera, captured_at=captured_at, track=box.track, meta=meta, name=name)


def moment(text: str) -> datetime:
    """A time with its zone: without one, it would be another moment elsewhere."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write 2026-05-01T12:00:00+02:00") from error
    if at.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text!r} has no zone: write {text}+02:00, or {text}Z for UTC")
    return at


def positive(text: str) -> float:
    """A number above zero."""
    number = float(text)
    if not 0 < number < inf:
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return number


def enrol(resight: Resight, crops: Iterable[NewCrop]) -> dict[str, int]:
    """How many crops came to which end; those that failed are named."""
    counts: dict[str, int] = defaultdict(int)
    for member in resight.enrol_stream(crops):
        counts[member.status] += 1
        if member.problem is not None:
            print(member.name, member.problem)
    return counts


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="enrol the crops of a MOTChallenge file")
    parser.add_argument("boxes", type=Path, help="gt.txt, det.txt or a tracker's output")
    parser.add_argument("frames", type=Path, help="the folder of its frames, 000001.jpg and so on")
    parser.add_argument("--camera", required=True, help="which camera saw them")
    parser.add_argument("--every", type=int, default=10, help="of each track every so manyth box")
    parser.add_argument("--least-confidence", type=float, default=0.5)
    parser.add_argument("--smallest", type=int, default=64, help="least height of a box, in pixels")
    parser.add_argument("--begins", type=moment, help="time of the first frame, with its zone")
    parser.add_argument("--rate", type=positive, default=25.0, help="frames a second")
    parser.add_argument("--url", default=DEFAULT_URL)
    options = parser.parse_args(arguments)
    if options.every < 1:
        parser.error("--every is 1 or more")
    try:
        by_frame = chosen(read_boxes(options.boxes, options.least_confidence), options.every, options.smallest)
        files = files_of(options.frames, by_frame)
        with Resight(options.url) as resight:
            counts = enrol(resight, crops_of(by_frame, files, options.camera, options.begins, options.rate))
    except (OSError, ValueError, ResightError) as error:
        raise SystemExit(str(error)) from error
    print(", ".join(f"{count} {status}" for status, count in sorted(counts.items())) or "no box was enrolled")


if __name__ == "__main__":
    main()
