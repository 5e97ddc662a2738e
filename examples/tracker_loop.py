"""Who has come? A tracker's loop: several shots of a track make one query; who matches nobody is enrolled as new.

    python examples/tracker_loop.py FOLDER --camera c1

FOLDER has a folder for each track, as a tracker leaves them: its shots, by time. In your own loop call `recognise` when
a track has ended, or has enough shots, with the crops as Pillow images or encoded bytes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from service.client import DEFAULT_URL, Resight
from service.client.images import Image

SHOTS = 8  # a query takes 16; beyond a few, more of the same moment say little


@dataclass(frozen=True)
class Recognised:
    """`identity` is None where two people are too alike to tell, and nothing was named."""

    identity: str | None
    new: bool
    distance: float | None


def spread(shots: Sequence[Image], most: int = SHOTS) -> list[Image]:
    """At most so many shots, evenly over the track: neighbours show nearly the same."""
    if len(shots) <= most:
        return list(shots)
    return [shots[round(place * (len(shots) - 1) / (most - 1))] for place in range(most)]


def recognise(resight: Resight, shots: Sequence[Image], *, camera: str, track: str) -> Recognised:
    """Match a track, or enrol its shots as somebody new. The shots of who is known are enrolled, too: other views help.

    `ambiguous` enrols without a name: a person can say later who it is. A model that brings no distance of a match
    needs RESIGHT_MATCH_DISTANCE.
    """
    chosen = spread(shots)
    ranking = resight.query(chosen, top_k=1, consistency="strong")
    best = ranking.matches[0] if ranking.matches else None
    if ranking.verdict is None:
        raise SystemExit("Nothing says what a match is: set RESIGHT_MATCH_DISTANCE (`resight calibrate` measures it).")
    known = ranking.verdict == "match" and best is not None
    new = ranking.verdict in ("unknown", "empty_gallery")
    identity = best.identity if known and best is not None else f"p-{uuid4().hex[:12]}" if new else None
    resight.enrol(chosen, identity=identity, camera=camera, track=track)
    return Recognised(identity, new, None if best is None else best.distance)


def tracks_of(folder: Path) -> dict[str, list[Image]]:
    """The shots of each track, by the names of their files."""
    return {track.name: [*sorted(track.iterdir())] for track in sorted(folder.iterdir()) if track.is_dir()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="match tracks, or enrol them as new people")
    parser.add_argument("folder", type=Path, help="a folder for each track")
    parser.add_argument("--camera", required=True, help="which camera saw them")
    parser.add_argument("--url", default=DEFAULT_URL)
    options = parser.parse_args(arguments)
    with Resight(options.url) as resight:
        for track, shots in tracks_of(options.folder).items():
            found = recognise(resight, shots, camera=options.camera, track=track)
            how = "new" if found.new else "ambiguous" if found.identity is None else "known"
            print(track, found.identity or "-", how, "" if found.distance is None else f"{found.distance:.3f}")


if __name__ == "__main__":
    main()
