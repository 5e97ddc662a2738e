"""The picture of a person in a pose.

The figure is a small skeleton in three dimensions (x to its left, y up, z forward; the unit is its own
height) seen from an angle, so that one person looks the same person from the front, the side and behind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import cos, hypot, pi, sin

from PIL import Image, ImageDraw

from training.data.drawing.colour import Colour, mixed, scaled
from training.data.drawing.person import Person, Pose

Point = tuple[float, float, float]

SUPERSAMPLING = 4


class _Pen:
    """Draws body parts, given in the body's own coordinates, on a supersampled transparent canvas."""

    def __init__(self, view: float, size: tuple[int, int], feet: tuple[float, float], height: float) -> None:
        width, rows = size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING
        self.image = Image.new("RGBA", (width, rows))
        self.draw = ImageDraw.Draw(self.image)
        self.across, self.into = cos(view), sin(view)
        self.unit = height * SUPERSAMPLING
        self.feet = (feet[0] * SUPERSAMPLING, feet[1] * SUPERSAMPLING)

    def at(self, point: Point) -> tuple[float, float]:
        x, y, z = point
        return self.feet[0] + self.unit * (x * self.across + z * self.into), self.feet[1] - self.unit * y

    def depth(self, point: Point) -> float:
        """How near the camera a point is."""
        return point[2] * self.across - point[0] * self.into

    def half_width(self, across: float, into: float) -> float:
        """Seen half width of an elliptic cross-section with these half axes."""
        return hypot(across * self.across, into * self.into)

    def dot(self, point: Point, radii: tuple[float, float], colour: Colour) -> None:
        (x, y), (rx, ry) = self.at(point), (radii[0] * self.unit, radii[1] * self.unit)
        self.draw.ellipse((x - rx, y - ry, x + rx, y + ry), fill=colour)

    def limb(self, joints: Sequence[Point], radii: Sequence[float], colour: Colour) -> None:
        """A chain of tapered capsules with a thin darker rim, which keeps an arm visible before its own torso."""
        for rim, shade in ((0.004, 0.72), (0.0, 1.0)):
            paint = scaled(colour, shade)
            for point, radius in zip(joints, radii, strict=True):
                self.dot(point, (radius + rim, radius + rim), paint)
            for (a, ra), (b, rb) in pairwise(zip(joints, radii, strict=True)):
                self._quad(self.at(a), self.at(b), (ra + rim) * self.unit, (rb + rim) * self.unit, paint)

    def _quad(self, a: tuple[float, float], b: tuple[float, float], ra: float, rb: float, colour: Colour) -> None:
        length = hypot(b[0] - a[0], b[1] - a[1]) or 1.0
        nx, ny = (a[1] - b[1]) / length, (b[0] - a[0]) / length
        corners = [(a[0] + nx * ra, a[1] + ny * ra), (b[0] + nx * rb, b[1] + ny * rb)]
        corners += [(b[0] - nx * rb, b[1] - ny * rb), (a[0] - nx * ra, a[1] - ny * ra)]
        self.draw.polygon(corners, fill=colour)

    def outline(self, levels: Sequence[tuple[float, float, float]]) -> list[tuple[float, float]]:
        """Silhouette of stacked cross-sections, each (height, half width, half depth)."""
        rows = [(self.at((0.0, y, 0.0)), self.half_width(w, d) * self.unit) for y, w, d in levels]
        return [(x - r, y) for (x, y), r in rows] + [(x + r, y) for (x, y), r in reversed(rows)]

    def cloth(self, shape: list[tuple[float, float]], texture: Image.Image) -> None:
        """Fill a polygon with a texture as large as the canvas."""
        mask = Image.new("L", self.image.size)
        ImageDraw.Draw(mask).polygon(shape, fill=255)
        self.image.paste(texture, (0, 0), mask)


def draw_figure(
    person: Person, pose: Pose, size: tuple[int, int], feet: tuple[float, float], height: float
) -> Image.Image:
    """Draw a person standing at `feet` (pixels), `height` pixels tall before its own factor: RGBA of `size` (W, H)."""
    pen = _Pen(pose.view, size, feet, height * person.height)
    parts: list[tuple[float, Callable[[], None]]] = [
        *_legs(pen, person, pose),
        *_arms(pen, person, pose),
        *_bag(pen, person),
        (0.0, lambda: _torso(pen, person)),
        (0.001, lambda: _head(pen, person)),
    ]
    if person.hair_style == "long" and pen.across > -0.2:  # falls behind the shoulders
        parts.append((-0.001, lambda: _mane(pen, person.hair)))
    for _, paint in sorted(parts, key=lambda part: part[0]):
        paint()
    return pen.image.reduce(SUPERSAMPLING)


def _legs(pen: _Pen, person: Person, pose: Pose) -> list[tuple[float, Callable[[], None]]]:
    sides = [(side, _leg_joints(side, pose, person.build)) for side in (1.0, -1.0)]
    lowest = min(joints[2][1] for _, joints in sides)
    legs: list[tuple[float, Callable[[], None]]] = []
    nearest = max(pen.depth(joints[0]) for _, joints in sides)
    for _, joints in sides:
        grounded = [(x, y - lowest + 0.036, z) for x, y, z in joints]
        tone = 1.0 if pen.depth(joints[0]) >= nearest - 1e-9 else 0.8
        # Every leg lies behind the top's hem: -1 puts both before the torso in painting order.
        legs.append((pen.depth(joints[0]) - 1.0, _leg_painter(pen, person, grounded, tone)))
    if person.bottom_style == "skirt":
        levels = [(0.55, 0.085, 0.06), (0.48, 0.1, 0.07), (0.29, 0.118, 0.095)]
        shape = pen.outline([(y, w * person.build, d * person.build) for y, w, d in levels])
        legs.append((-0.5, lambda: pen.draw.polygon(shape, fill=person.bottom)))
    return legs


def _leg_joints(side: float, pose: Pose, build: float) -> list[Point]:
    phase = pose.phase + (0.0 if side > 0 else pi)
    thigh = pose.stride * sin(phase)
    calf = thigh - 0.06 - 1.3 * pose.stride * max(0.0, cos(phase))  # the leg that swings forward bends its knee
    hip = (side * 0.048 * build, 0.5, 0.0)
    knee = (hip[0], hip[1] - 0.23 * cos(thigh), 0.23 * sin(thigh))
    ankle = (hip[0], knee[1] - 0.235 * cos(calf), knee[2] + 0.235 * sin(calf))
    return [hip, knee, ankle]


def _leg_painter(pen: _Pen, person: Person, joints: list[Point], tone: float) -> Callable[[], None]:
    hip, knee, ankle = joints
    build = person.build
    cloth, skin, shoe = (scaled(c, tone) for c in (person.bottom, person.skin, person.shoes))

    def paint() -> None:
        toe = (ankle[0], max(0.012, ankle[1] - 0.018), ankle[2] + 0.07)
        heel = (ankle[0], ankle[1] - 0.016, ankle[2] - 0.012)
        pen.limb((heel, toe), (0.022, 0.016), shoe)
        if person.bottom_style == "trousers":
            pen.limb((hip, knee, ankle), (0.052 * build, 0.042 * build, 0.031 * build), cloth)
            return
        pen.limb((hip, knee, ankle), (0.045 * build, 0.034 * build, 0.021 * build), skin)
        if person.bottom_style == "shorts":
            end: Point = (knee[0], knee[1] + 0.03, hip[2] + (knee[2] - hip[2]) * 0.87)
            pen.limb((hip, end), (0.054 * build, 0.05 * build), cloth)

    return paint


def _arms(pen: _Pen, person: Person, pose: Pose) -> list[tuple[float, Callable[[], None]]]:
    arms: list[tuple[float, Callable[[], None]]] = []
    for side in (1.0, -1.0):
        swing = -0.9 * pose.stride * sin(pose.phase + (0.0 if side > 0 else pi))
        shoulder = (side * 0.103 * person.build, 0.805, 0.0)
        elbow = (shoulder[0] + side * 0.022, shoulder[1] - 0.165 * cos(swing), 0.165 * sin(swing))
        angle = swing + pose.bend
        wrist = (elbow[0] - side * 0.004, elbow[1] - 0.155 * cos(angle), elbow[2] + 0.155 * sin(angle))
        # The elbow decides whether the arm passes before or behind the torso; seen edge on, the nearer side does.
        depth = pen.depth(elbow)
        arms.append((depth, _arm_painter(pen, person, (shoulder, elbow, wrist), 1.0 if depth > -0.02 else 0.8)))
    return arms


def _arm_painter(pen: _Pen, person: Person, joints: tuple[Point, Point, Point], tone: float) -> Callable[[], None]:
    shoulder, elbow, wrist = joints
    build, sleeve, skin = person.build, scaled(person.top, tone * 0.95), scaled(person.skin, tone)

    def paint() -> None:
        pen.dot(wrist, (0.022, 0.026), skin)
        if person.sleeves == "long":
            pen.limb(joints, (0.036 * build, 0.031 * build, 0.024), sleeve)
        else:
            pen.limb(joints, (0.028 * build, 0.024 * build, 0.018), skin)
            cuff = tuple(s + 0.72 * (e - s) for s, e in zip(shoulder, elbow, strict=True))
            pen.limb((shoulder, (cuff[0], cuff[1], cuff[2])), (0.037 * build, 0.035 * build), sleeve)

    return paint


TORSO = ((0.85, 0.04, 0.035), (0.83, 0.096, 0.045), (0.805, 0.113, 0.052), (0.73, 0.104, 0.064))
WAIST = ((0.62, 0.089, 0.058), (0.52, 0.095, 0.064))


def _torso(pen: _Pen, person: Person) -> None:
    flare = 1.0 + 0.9 * (0.47 - person.hem)
    levels = [*TORSO, *WAIST, (person.hem, 0.096 * flare, 0.064 * flare)]
    build = person.build
    pen.limb(((0.0, 0.82, 0.0), (0.0, 0.88, 0.008)), (0.036, 0.031), scaled(person.skin, 0.86))
    shape = pen.outline([(y, w * build, d * build) for y, w, d in levels])
    pen.cloth(shape, _texture(pen, person))
    if person.inner is not None and pen.across > 0.1:
        pen.draw.polygon(_opening(pen, person), fill=person.inner)
    if pen.across > 0.3 and person.inner is None:
        pen.dot((0.0, 0.838, 0.05), (0.028 * pen.across, 0.02), scaled(person.skin, 0.9))  # neckline
    pen.draw.line([shape[len(levels) - 1], shape[len(levels)]], fill=scaled(person.top, 0.6), width=3)


def _opening(pen: _Pen, person: Person) -> list[tuple[float, float]]:
    """The wedge in which an open jacket shows the shirt."""
    front = 0.05
    left = [(-0.028, 0.845, front * 0.7), (-0.026, 0.7, front), (-0.034, person.hem, front)]
    right = [(-x, y, z) for x, y, z in reversed(left)]
    return [pen.at(point) for point in (*left, *right)]


def _texture(pen: _Pen, person: Person) -> Image.Image:
    """The top's cloth, as large as the canvas and fixed to the body."""
    cloth = Image.new("RGB", pen.image.size, person.top)
    draw, unit = ImageDraw.Draw(cloth), pen.unit
    (middle, floor), width = pen.feet, pen.image.size[0]
    band = scaled(person.accent, 0.95)
    blend = mixed(person.top, person.accent)
    if person.pattern in ("stripes", "checks"):
        for row in range(10):
            y = floor - unit * (0.84 - 0.048 * row)
            draw.rectangle((0, y, width, y + unit * 0.021), fill=band if person.pattern == "stripes" else blend)
    if person.pattern in ("bars", "checks"):
        for column in range(-4, 5):
            x = middle + unit * 0.042 * column
            draw.rectangle((x, 0, x + unit * 0.018, floor), fill=band if person.pattern == "bars" else blend)
    if person.pattern == "block":
        draw.rectangle((0, 0, width, floor - unit * 0.7), fill=band)
    if person.pattern == "print" and pen.across > 0.25:
        x, y = pen.at((0.0, 0.72, 0.05))
        draw.rounded_rectangle(
            (
                x - unit * 0.045 * pen.across,
                y - unit * 0.035,
                x + unit * 0.045 * pen.across,
                y + unit * 0.045,
            ),
            radius=int(unit * 0.015),
            fill=band,
        )
    return cloth


def _head(pen: _Pen, person: Person) -> None:
    facing = pen.across
    hair = person.hair if person.hair_style != "bald" else scaled(person.skin, 0.93)
    pen.dot((0.0, 0.932, -0.006), (pen.half_width(0.053, 0.06), 0.066), hair)
    if facing > -0.75:
        _face(pen, person.skin)
    if person.hair_style == "long" and facing <= -0.2:
        _mane(pen, hair)
    if person.hair_style == "ponytail":
        pen.limb(((0.0, 0.95, -0.055), (0.0, 0.86, -0.075)), (0.024, 0.012), hair)
    if person.hair_style == "cap":
        _cap(pen, person.accent)


def _face(pen: _Pen, skin: Colour) -> None:
    # The face slides round the head and narrows with the turn.
    narrow = 0.62 + 0.38 * max(0.0, pen.across)
    pen.dot((0.0, 0.918, 0.02), (0.044 * narrow, 0.054), skin)
    if pen.across > 0.2:
        for eye in (-0.018, 0.018):
            pen.dot((eye, 0.926, 0.04), (0.007, 0.006), scaled(skin, 0.4))
        pen.dot((0.0, 0.893, 0.042), (0.014 * pen.across, 0.004), scaled(skin, 0.66))


def _mane(pen: _Pen, hair: Colour) -> None:
    shape = pen.outline([(0.97, 0.03, 0.035), (0.93, 0.056, 0.055), (0.85, 0.06, 0.05), (0.79, 0.05, 0.035)])
    shift = -0.022 * pen.into * pen.unit
    pen.draw.polygon([(x + shift, y) for x, y in shape], fill=scaled(hair, 0.92))


def _cap(pen: _Pen, colour: Colour) -> None:
    x, y = pen.at((0.0, 0.945, -0.004))
    radius, rise = pen.half_width(0.057, 0.064) * pen.unit, 0.06 * pen.unit
    pen.draw.pieslice((x - radius, y - rise, x + radius, y + rise), 180, 360, fill=colour)
    if pen.across > -0.5:
        pen.limb(((0.0, 0.945, 0.04), (0.0, 0.938, 0.085)), (0.016, 0.01), scaled(colour, 0.8))


def _bag(pen: _Pen, person: Person) -> list[tuple[float, Callable[[], None]]]:
    if person.bag == "backpack":
        centre: Point = (0.0, 0.7, -0.095)
        strap = max(0.05, pen.depth((0.0, 0.7, 0.06)) + 0.05)
        return [
            (pen.depth(centre), lambda: _backpack(pen, person)),
            (strap, lambda: _straps(pen, person)),
        ]
    if person.bag == "shoulder":
        return [(0.16, lambda: _shoulder_bag(pen, person))]
    if person.bag == "hand":
        grip: Point = (0.135 * person.build, 0.44, 0.02)
        return [(pen.depth(grip) + 0.02, lambda: _hand_bag(pen, person, grip))]
    return []


def _backpack(pen: _Pen, person: Person) -> None:
    x, _ = pen.at((0.0, 0.0, -0.085))
    half = pen.half_width(0.088, 0.05) * pen.unit
    top, bottom = pen.at((0.0, 0.83, 0.0))[1], pen.at((0.0, 0.56, 0.0))[1]
    radius = int(0.03 * pen.unit)
    pen.draw.rounded_rectangle((x - half, top, x + half, bottom), radius=radius, fill=person.bag_colour)
    if pen.across < 0.0:
        pocket = scaled(person.bag_colour, 0.74)
        inset = half * 0.72
        pen.draw.rounded_rectangle(
            (x - inset, (top + bottom) / 2, x + inset, bottom - 0.02 * pen.unit),
            radius=radius // 2,
            fill=pocket,
        )


def _straps(pen: _Pen, person: Person) -> None:
    if pen.across < 0.15:
        return
    for side in (1.0, -1.0):
        joints = ((side * 0.066, 0.835, 0.03), (side * 0.07, 0.68, 0.055))
        pen.limb(joints, (0.012, 0.012), person.bag_colour)


def _shoulder_bag(pen: _Pen, person: Person) -> None:
    """A strap over the right shoulder to a bag on the left hip; from behind it runs the other way."""
    front = 0.055 if pen.across >= 0 else -0.055
    hip: Point = (0.105 * person.build, 0.5, front * 0.6)
    strap = scaled(person.bag_colour, 0.85)
    pen.limb(((-0.07 * person.build, 0.838, front * 0.5), hip), (0.008, 0.008), strap)
    if pen.depth((0.105, 0.5, 0.0)) < -0.06:
        return  # the body hides the bag
    x, y = pen.at(hip)
    half, tall = pen.half_width(0.05, 0.075) * pen.unit, 0.055 * pen.unit
    pen.draw.rounded_rectangle((x - half, y - tall, x + half, y + tall), radius=6, fill=person.bag_colour)


def _hand_bag(pen: _Pen, person: Person, grip: Point) -> None:
    x, y = pen.at(grip)
    half, unit = pen.half_width(0.03, 0.07) * pen.unit, pen.unit
    pen.draw.arc((x - half * 0.7, y - 0.01 * unit, x + half * 0.7, y + 0.09 * unit), 180, 360, person.bag_colour, 4)
    shape = (x - half, y + 0.035 * unit, x + half, y + 0.14 * unit)
    pen.draw.rounded_rectangle(shape, radius=6, fill=person.bag_colour)
