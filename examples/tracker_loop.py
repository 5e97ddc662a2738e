"""Who has come? A tracker's loop: several shots of a track make one query; who matches nobody is enrolled as new.

    .venv/bin/python examples/tracker_loop.py FOLDER --camera c1

FOLDER has a folder for each track, as a tracker leaves them: its shots, by time. In your own loop call `recognise` when
a track has ended, or has enough shots, with the crops as Pillow images or encoded bytes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from uuid import uuid4

from service.client import DEFAULT_URL, Resight, ResightError
from service.client.answers import Match, Ranking
from service.client.images import Image

SHOTS = 8  # a query takes 16; beyond a few, more of the same moment say little
NEAREST = 100  # a crop without a name is a place of its own in the ranking
REFUSED = 422  # a picture or a label that the service does not take
PICTURES = (".jpg", ".jpeg", ".png", ".webp")


How = Literal["known", "new", "named", "ambiguous"]


@dataclass(frozen=True)
class Recognised:
    """Who a track is. `how` says what lay below the distance of a match:

    known: one person, whose name the track has now. new: nobody, and it has a new name. named: only crops without a
    name, such as mot_to_gallery.py enrols; they and the track have one new name. ambiguous: several people who are too
    alike to tell; the track is enrolled without a name (`identity` is None), and a person can say later who it is.
    """

    identity: str | None
    how: How
    distance: float | None


def spread(shots: Sequence[Image], most: int = SHOTS) -> list[Image]:
    """At most so many shots, evenly over the track: neighbours show nearly the same."""
    if len(shots) <= most:
        return list(shots)
    return [shots[round(place * (len(shots) - 1) / (most - 1))] for place in range(most)]


def recognise(resight: Resight, shots: Sequence[Image], *, camera: str, track: str) -> Recognised:
    """Match a track, or enrol its shots as somebody new. The shots of who is known are enrolled, too: other views help.

    Crops without a name do not make the answer `ambiguous` here, as they do in `verdict`: those below the distance of
    a match are taken for the person of the track. A model that brings no such distance needs RESIGHT_MATCH_DISTANCE.
    """
    chosen = spread(shots)
    ranking = resight.query(chosen, top_k=NEAREST, consistency="strong")
    if ranking.verdict is None:
        raise SystemExit("Nothing says what a match is: set RESIGHT_MATCH_DISTANCE (`resight calibrate` measures it).")
    identity, how = decide(ranking)
    resight.enrol(chosen, identity=identity, camera=camera, track=track)
    if how == "named":
        for match in near(ranking):
            resight.correct(match.crop_id, identity=identity)
    return Recognised(identity, how, ranking.matches[0].distance if ranking.matches else None)


def decide(ranking: Ranking) -> tuple[str | None, How]:
    """Which name a track gets, and why."""
    names = [match.identity for match in near(ranking) if match.identity is not None]
    nearest = ranking.matches[0].identity if ranking.matches else None
    if ranking.verdict == "match" and nearest is not None:
        return nearest, "known"
    if len(names) == 1:
        return names[0], "known"
    if names:
        return None, "ambiguous"
    return f"p-{uuid4().hex[:12]}", "named" if near(ranking) else "new"


def near(ranking: Ranking) -> list[Match]:
    """The people, and the crops without a name, below the distance of a match."""
    return [match for match in ranking.matches if match.support]


def tracks_of(folder: Path) -> dict[str, list[Image]]:
    """The shots of each track, by the names of their files."""
    return {
        track.name: [shot for shot in sorted(track.iterdir()) if shot.suffix.lower() in PICTURES]
        for track in sorted(folder.iterdir())
        if track.is_dir()
    }


def follow(resight: Resight, folder: Path, camera: str) -> None:
    """Recognise every track of a folder, and print a line for each. One that is refused does not stop the others."""
    for track, shots in tracks_of(folder).items():
        if not shots:
            print(f"{track}: no pictures, skipped", file=sys.stderr)
            continue
        try:
            found = recognise(resight, shots, camera=camera, track=track)
        except ResightError as error:
            if error.status != REFUSED:
                raise
            print(f"{track}: {error} Skipped.", file=sys.stderr)
            continue
        print(track, found.identity or "-", found.how, "" if found.distance is None else f"{found.distance:.3f}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="match tracks, or enrol them as new people")
    parser.add_argument("folder", type=Path, help="a folder for each track")
    parser.add_argument("--camera", required=True, help="which camera saw them")
    parser.add_argument("--url", default=DEFAULT_URL)
    options = parser.parse_args(arguments)
    try:
        if not tracks_of(options.folder):
            parser.error(f"{options.folder} has no folders: give the folder that has one for each track")
        with Resight(options.url) as resight:
            follow(resight, options.folder, options.camera)
    except (OSError, ValueError, ResightError) as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
