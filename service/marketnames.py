"""Labels in file names: Market-1501's form, which DukeMTMC-reID and others share."""

from __future__ import annotations

import re
from dataclasses import dataclass

JUNK, DISTRACTOR = "-1", "0000"

# identity_camera…: 0002_c1s1_000451_03.jpg (Market-1501), 0005_c2_f0046985.jpg (DukeMTMC-reID).
_NAME = re.compile(r"(?P<identity>-1|\d+)_(?P<camera>c\d+)(s\d+)?_f?\d+(_\d+)?(\.\w+)+", re.ASCII)
_CAMERA = re.compile(r"[^_]+_(?P<camera>c\d+)(s\d+)?_", re.ASCII)  # whoever it is, and whatever follows


@dataclass(frozen=True)
class MarketName:
    """What a name says. Distractors, identity 0000, are many different people and have no `identity` here."""

    identity: str | None
    camera: str
    junk: bool
    distractor: bool


def read_market_name(name: str) -> MarketName | None:
    """The labels in a file's name without folders; None where it has another form."""
    parts = _NAME.fullmatch(name)
    if parts is None:
        return None
    junk, distractor = parts["identity"] == JUNK, parts["identity"] == DISTRACTOR
    return MarketName(None if junk or distractor else parts["identity"], parts["camera"], junk, distractor)


def read_camera(name: str) -> str | None:
    """The camera in a file's name where something else tells the person: c2 of anna_c2_door.jpg; None without one."""
    parts = _CAMERA.match(name)
    return None if parts is None else parts["camera"]
