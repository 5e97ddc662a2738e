"""Who a drawn pedestrian is (`Person`) and how it stands (`Pose`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.random import Generator

from training.data.drawing.colour import Colour

Option = TypeVar("Option", str, float)

SKINS: Sequence[Colour] = ((236, 195, 168), (222, 176, 144), (190, 138, 104), (146, 100, 72), (98, 66, 48))
HAIRS: Sequence[Colour] = (
    (32, 26, 24),
    (54, 38, 28),
    (92, 62, 38),
    (160, 122, 70),
    (138, 134, 130),
    (124, 56, 30),
)
# Street clothes: dark tones dominate and repeat, so that one colour alone names nobody.
CLOTHES: Sequence[Colour] = (
    *((34, 34, 38), (40, 46, 66), (86, 88, 92), (226, 224, 218), (30, 32, 36), (58, 66, 84), (136, 138, 140)),
    *((166, 44, 46), (58, 98, 160), (74, 104, 72), (204, 180, 140), (112, 72, 50), (224, 190, 70)),
    *((110, 60, 100), (220, 150, 160), (96, 156, 184), (214, 112, 50), (70, 72, 48)),
)
TROUSERS: Sequence[Colour] = (
    *(
        (30, 32, 38),
        (44, 56, 84),
        (70, 92, 128),
        (64, 64, 68),
        (36, 36, 40),
        (178, 158, 122),
        (120, 150, 186),
    ),
    *((94, 98, 76), (150, 148, 146), (96, 70, 52)),
)
SHOES: Sequence[Colour] = (
    (28, 26, 26),
    (232, 230, 226),
    (94, 62, 40),
    (110, 112, 116),
    (166, 50, 46),
    (38, 46, 72),
)
BAGS: Sequence[Colour] = (
    (30, 30, 34),
    (46, 58, 92),
    (128, 80, 46),
    (160, 42, 44),
    (72, 88, 62),
    (196, 168, 124),
)

PATTERNS = ("plain", "stripes", "bars", "checks", "block", "print")
PATTERN_SHARES = (0.36, 0.15, 0.07, 0.12, 0.13, 0.17)


@dataclass(frozen=True)
class Person:
    """What stays the same about somebody from camera to camera."""

    height: float  # of the body, as a share of a common height
    build: float  # width, 1 = common
    skin: Colour
    hair: Colour
    hair_style: str  # short | long | ponytail | bald | cap
    top: Colour
    accent: Colour  # second colour of the top
    pattern: str  # plain | stripes | bars | checks | block | print
    sleeves: str  # long | short
    hem: float  # height above the ground at which the top ends
    inner: Colour | None  # the shirt that shows in an open jacket
    bottom: Colour
    bottom_style: str  # trousers | shorts | skirt
    shoes: Colour
    bag: str  # none | backpack | shoulder | hand
    bag_colour: Colour


@dataclass(frozen=True)
class Pose:
    """How somebody stands in one crop; angles in radians."""

    view: float  # 0 faces the camera, pi turns its back, pi / 2 walks to the right
    phase: float  # of the step
    stride: float  # largest angle of the thigh
    bend: float  # of the elbows


def random_person(random: Generator) -> Person:
    """Draw somebody's looks."""
    jacket = random.random() < 0.35
    skirt = random.random() < 0.16
    return Person(
        height=random.uniform(0.9, 1.03),
        build=random.uniform(0.88, 1.28),
        skin=_pick(random, SKINS, 8),
        hair=_pick(random, HAIRS, 8),
        hair_style=_choose(random, ("short", "long", "ponytail", "bald", "cap"), (0.42, 0.26, 0.12, 0.08, 0.12)),
        top=_pick(random, CLOTHES, 14),
        accent=_pick(random, CLOTHES, 14),
        pattern="plain" if jacket else _choose(random, PATTERNS, PATTERN_SHARES),
        sleeves="long" if jacket or random.random() < 0.35 else "short",
        hem=_choose(random, (0.47, 0.43, 0.31), (0.55, 0.3, 0.15) if jacket else (0.6, 0.4, 0.0)),
        inner=_pick(random, CLOTHES, 14) if jacket and random.random() < 0.7 else None,
        bottom=_pick(random, TROUSERS, 12),
        bottom_style="skirt" if skirt else _choose(random, ("trousers", "shorts"), (0.75, 0.25)),
        shoes=_pick(random, SHOES, 8),
        bag=_choose(random, ("none", "backpack", "shoulder", "hand"), (0.42, 0.28, 0.18, 0.12)),
        bag_colour=_pick(random, BAGS, 12),
    )


def _pick(random: Generator, palette: Sequence[Colour], spread: int) -> Colour:
    base = palette[int(random.integers(len(palette)))]
    red, green, blue = np.clip(base + random.integers(-spread, spread + 1, 3), 0, 255).tolist()
    return red, green, blue


def _choose(random: Generator, options: Sequence[Option], shares: Sequence[float]) -> Option:
    return options[int(random.choice(len(options), p=shares))]
