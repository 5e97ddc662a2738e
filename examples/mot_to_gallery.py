"""A detector-tracker's output into the gallery: MOTChallenge text and a folder of frames.

    python examples/mot_to_gallery.py gt/gt.txt img1 --camera c1 --every 10

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
from pathlib import Path

from PIL import Image

from service.client import DEFAULT_URL, NewCrop, Resight

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
            except ValueError as error:
                raise ValueError(
                    f"{path}, line {number}: frame,id,left,top,width,height,confidence is needed"
                ) from error
            if confidence >= least_confidence:
                boxes.append(Box(int(frame), None if track < 0 else str(int(track)), left, top, width, height))
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


def crops_of(
    by_frame: dict[int, list[Box]], frames: Path, camera: str, begins: datetime | None, rate: float
) -> Iterator[NewCrop]:
    """The crops, cut as they are needed: a frame is read once, and one is in memory at a time."""
    files = {int(path.stem): path for path in frames.iterdir() if path.suffix.lower() in PICTURES}
    for frame, boxes in by_frame.items():
        if frame not in files:
            raise FileNotFoundError(f"{frames} has no frame {frame}")
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


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="enrol the crops of a MOTChallenge file")
    parser.add_argument("boxes", type=Path, help="gt.txt, det.txt or a tracker's output")
    parser.add_argument("frames", type=Path, help="the folder of its frames, 000001.jpg and so on")
    parser.add_argument("--camera", required=True, help="which camera saw them")
    parser.add_argument("--every", type=int, default=10, help="of each track every so manyth box")
    parser.add_argument("--least-confidence", type=float, default=0.5)
    parser.add_argument("--smallest", type=int, default=64, help="least height of a box, in pixels")
    parser.add_argument("--begins", type=datetime.fromisoformat, help="time of the first frame, with its zone")
    parser.add_argument("--rate", type=float, default=25.0, help="frames a second")
    parser.add_argument("--url", default=DEFAULT_URL)
    options = parser.parse_args(arguments)
    by_frame = chosen(read_boxes(options.boxes, options.least_confidence), options.every, options.smallest)
    counts: dict[str, int] = defaultdict(int)
    with Resight(options.url) as resight:
        for member in resight.enrol_stream(
            crops_of(by_frame, options.frames, options.camera, options.begins, options.rate)
        ):
            counts[member.status] += 1
            if member.problem is not None:
                print(member.name, member.problem)
    print(", ".join(f"{count} {status}" for status, count in sorted(counts.items())) or "no box was enrolled")


if __name__ == "__main__":
    main()
