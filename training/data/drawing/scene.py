"""What one drawn camera looks at, and how it renders it: backdrop, light, colour cast, blur, noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from training.data.drawing.colour import Colour, scaled

PANORAMA = (320, 160)  # pixels; the crops are windows of it
DETAIL = 2  # the panorama is drawn this much larger
CAMERA_STREAM = 900_000  # keeps a camera's generator apart from every identity's


@dataclass(frozen=True)
class Scene:
    """A camera: the panorama behind its pedestrians and its exposure."""

    panorama: Image.Image  # RGB, PANORAMA
    light: float  # where the sun stands: -1 left, 1 right
    cast: tuple[float, float, float]  # gain of red, green, blue
    contrast: float
    blur: float  # pixels
    noise: float  # standard deviation, grey levels
    post: Colour  # of the street furniture in front

    def backdrop(self, random: Generator, size: tuple[int, int]) -> Image.Image:
        """A random window of the panorama, resized to `size` (W, H)."""
        width, height = self.panorama.size
        zoom = random.uniform(0.95, 1.2)
        wide, tall = size[0] * zoom, size[1] * zoom
        left = random.uniform(0, width - wide)
        top = max(0.0, height - tall - random.uniform(0, 6))
        box = (left, top, left + wide, top + tall)
        return self.panorama.resize(size, Image.Resampling.BILINEAR, box)

    def occlude(self, random: Generator, picture: Image.Image) -> Image.Image:
        """Put a post or a planter between the camera and the person."""
        width, height = picture.size
        large = picture.resize((width * DETAIL, height * DETAIL))
        draw = ImageDraw.Draw(large)
        w, h = large.size
        if random.random() < 0.5:
            x = random.uniform(0.1, 0.9) * w
            draw.rectangle((x, 0, x + 0.09 * w, h), fill=self.post)
            draw.rectangle((x, 0, x + 0.02 * w, h), fill=scaled(self.post, 1.4))
        else:
            top = random.uniform(0.74, 0.84) * h
            for _ in range(40):
                x, y = random.uniform(-0.1, 1.0) * w, top + random.uniform(-0.07, 0.03) * h
                green = (int(random.integers(40, 80)), int(random.integers(80, 125)), int(random.integers(36, 66)))
                draw.ellipse((x, y, x + 0.14 * w, y + 0.07 * h), fill=green)
            draw.rectangle((0, top + 0.04 * h, w, h), fill=scaled(self.post, 1.2))
        return large.reduce(DETAIL)

    def expose(self, random: Generator, picture: Image.Image) -> Image.Image:
        """The camera's lens and sensor: blur, cast, contrast, a brightness of the moment, noise."""
        blurred = picture.filter(ImageFilter.GaussianBlur(self.blur * random.uniform(0.6, 1.4)))
        pixels = np.asarray(blurred, np.float32)
        gain = np.asarray(self.cast, np.float32) * np.float32(random.uniform(0.85, 1.15))
        pixels = (pixels * gain - 118) * np.float32(self.contrast) + 118
        pixels += random.normal(0, self.noise, pixels.shape[:2]).astype(np.float32)[..., None]
        return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def draw_scene(seed: int, camera: int) -> Scene:
    """Draw the place that camera `camera` (from 1) watches."""
    random = default_rng([seed, CAMERA_STREAM, camera])
    painters: tuple[_Painter, ...] = (_street, _park, _shops, _square, _corridor, _crossing)
    size = (PANORAMA[0] * DETAIL, PANORAMA[1] * DETAIL)
    canvas = Image.new("RGB", size)
    painters[(camera - 1 + seed) % len(painters)](ImageDraw.Draw(canvas), random, *size)
    warmth = random.uniform(-0.09, 0.09)
    level = random.uniform(0.86, 1.08)
    return Scene(
        panorama=_textured(canvas, random).filter(ImageFilter.GaussianBlur(1.6)).reduce(DETAIL),
        light=random.uniform(0.4, 1.0) * (1 if random.random() < 0.5 else -1),
        cast=(level * (1 + warmth), level * (1 + random.uniform(-0.03, 0.03)), level * (1 - warmth)),
        contrast=random.uniform(0.82, 1.1),
        blur=random.uniform(0.3, 0.75),
        noise=random.uniform(1.5, 4.0),
        post=_grey(random, 70, 120),
    )


class _Painter(Protocol):
    def __call__(self, draw: ImageDraw.ImageDraw, random: Generator, w: int, h: int) -> None: ...


def _textured(canvas: Image.Image, random: Generator) -> Image.Image:
    """Coarse and fine mottling, so that no surface is one flat colour."""
    pixels = np.asarray(canvas, np.float32)
    coarse = _noise(random, canvas.size, 24) * 0.09 + _noise(random, canvas.size, 4) * 0.05
    return Image.fromarray(np.clip(pixels * (1 + coarse[..., None]), 0, 255).astype(np.uint8))


def _noise(random: Generator, size: tuple[int, int], grain: int) -> NDArray[np.float32]:
    cells = random.uniform(-1, 1, (size[1] // grain + 2, size[0] // grain + 2)).astype(np.float32)
    return np.asarray(Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC), np.float32)


def _street(draw: ImageDraw.ImageDraw, random: Generator, w: int, h: int) -> None:
    """A brick front, a pavement of slabs, a kerb."""
    horizon = int(h * 0.34)
    _bricks(draw, random, w, horizon)
    for x in range(int(random.integers(30, 80)), w, int(random.integers(130, 170))):
        _window(draw, (x, int(horizon * 0.12), x + 60, int(horizon * 0.72)))
    _slabs(draw, w, h, horizon, _grey(random, 140, 165), rows=9)
    draw.rectangle((0, int(h * 0.93), w, h), fill=_grey(random, 82, 100))
    draw.rectangle((0, int(h * 0.915), w, int(h * 0.935)), fill=_grey(random, 176, 196))


def _park(draw: ImageDraw.ImageDraw, random: Generator, w: int, h: int) -> None:
    """A hedge, a lawn, a sandy path."""
    horizon = int(h * 0.4)
    draw.rectangle((0, 0, w, horizon), fill=(74, 98, 62))
    for _ in range(900):
        x, y = random.uniform(-20, w), random.uniform(-20, horizon - 10)
        shade = random.uniform(0.55, 1.25)
        size = random.uniform(8, 30)
        draw.ellipse((x, y, x + size, y + size * 0.8), fill=scaled((72, 104, 58), shade))
    draw.rectangle((0, horizon, w, h), fill=(112, 138, 78))
    draw.polygon([(0, h * 0.62), (w, h * 0.5), (w, h), (0, h)], fill=(190, 170, 138))
    for x in range(int(random.integers(0, 90)), w, 210):
        draw.rectangle((x, 0, x + 16, int(h * 0.45)), fill=(82, 66, 52))


def _shops(draw: ImageDraw.ImageDraw, random: Generator, w: int, h: int) -> None:
    """Shop windows under awnings, light paving."""
    horizon = int(h * 0.46)
    draw.rectangle((0, 0, w, horizon), fill=_grey(random, 150, 170))
    x = -int(random.integers(0, 80))
    while x < w:
        shop = int(random.integers(110, 190))
        sign = (int(random.integers(50, 210)), int(random.integers(50, 170)), int(random.integers(50, 190)))
        draw.rectangle((x + 6, int(h * 0.05), x + shop - 6, int(h * 0.13)), fill=sign)
        _window(draw, (x + 10, int(h * 0.15), x + shop - 40, int(h * 0.4)))
        draw.rectangle((x + shop - 34, int(h * 0.15), x + shop - 10, horizon), fill=scaled(sign, 0.5))
        x += shop
    _slabs(draw, w, h, horizon, _grey(random, 168, 190), rows=7)


def _square(draw: ImageDraw.ImageDraw, random: Generator, w: int, h: int) -> None:
    """A wide square of warm tiles seen from above, with benches at its far end."""
    horizon = int(h * 0.16)
    draw.rectangle((0, 0, w, horizon), fill=(128, 134, 118))
    _slabs(draw, w, h, horizon, (178, 158, 140), rows=12)
    for x in range(int(random.integers(0, 120)), w, 170):
        y = int(h * random.uniform(0.18, 0.3))
        draw.rectangle((x, y, x + 80, y + 8), fill=(116, 84, 56))
        draw.rectangle((x + 6, y + 8, x + 12, y + 24), fill=(70, 66, 62))
        draw.rectangle((x + 68, y + 8, x + 74, y + 24), fill=(70, 66, 62))


def _corridor(draw: ImageDraw.ImageDraw, random: Generator, w: int, h: int) -> None:
    """Indoors: a pale wall with doors, a skirting board, a shining floor."""
    horizon = int(h * 0.58)
    draw.rectangle((0, 0, w, horizon), fill=(202, 198, 184))
    for x in range(int(random.integers(10, 90)), w, 190):
        draw.rectangle((x, int(h * 0.08), x + 74, horizon), fill=(132, 98, 70))
        draw.rectangle((x + 7, int(h * 0.13), x + 67, int(h * 0.3)), fill=(156, 176, 182))
    draw.rectangle((0, horizon - 9, w, horizon), fill=(106, 104, 100))
    for y in range(horizon, h):
        draw.line((0, y, w, y), fill=scaled((150, 152, 152), 0.8 + 0.4 * (y - horizon) / (h - horizon)))


def _crossing(draw: ImageDraw.ImageDraw, random: Generator, w: int, h: int) -> None:
    """Asphalt with a zebra crossing and parked cars behind."""
    horizon = int(h * 0.3)
    draw.rectangle((0, 0, w, horizon), fill=_grey(random, 138, 158))
    draw.rectangle((0, horizon, w, h), fill=_grey(random, 92, 108))
    x = -int(random.integers(0, 90))
    while x < w:
        paint = (int(random.integers(40, 200)), int(random.integers(40, 180)), int(random.integers(40, 180)))
        draw.rounded_rectangle((x, int(h * 0.2), x + 150, int(h * 0.37)), radius=16, fill=paint)
        draw.rounded_rectangle((x + 28, int(h * 0.1), x + 122, int(h * 0.25)), radius=14, fill=(60, 70, 80))
        for wheel in (x + 22, x + 102):
            draw.ellipse((wheel, int(h * 0.32), wheel + 30, int(h * 0.32) + 30), fill=(30, 30, 32))
        x += 190
    for stripe in range(0, w, 84):
        corners = [(stripe, h * 0.55), (stripe + 44, h * 0.55), (stripe + 34, h), (stripe - 18, h)]
        draw.polygon(corners, fill=(206, 206, 202))


def _bricks(draw: ImageDraw.ImageDraw, random: Generator, w: int, bottom: int) -> None:
    draw.rectangle((0, 0, w, bottom), fill=(150, 138, 128))
    for row, y in enumerate(range(0, bottom, 10)):
        for x in range(-(row % 2) * 14, w, 28):
            draw.rectangle((x, y, x + 26, y + 8), fill=scaled((148, 96, 76), random.uniform(0.82, 1.14)))


def _window(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int]) -> None:
    left, top, right, bottom = box
    draw.rectangle(box, fill=(222, 218, 210))
    draw.rectangle((left + 4, top + 4, right - 4, bottom - 4), fill=(84, 102, 118))
    draw.polygon([(left + 4, bottom - 4), (left + 4, top + 24), (right - 20, top + 4)], fill=(116, 136, 150))


def _slabs(draw: ImageDraw.ImageDraw, w: int, h: int, horizon: int, colour: Colour, rows: int) -> None:
    """Paving in perspective: joints that converge and crowd towards the horizon."""
    draw.rectangle((0, horizon, w, h), fill=colour)
    joint = scaled(colour, 0.82)
    for row in range(rows):
        y = horizon + (h - horizon) * (row / rows) ** 1.7
        draw.line((0, y, w, y), fill=joint, width=2)
    for x in range(-2 * w, 3 * w, 70):
        draw.line((w / 2 + (x - w / 2) * 0.45, horizon, x, h), fill=joint, width=2)


def _grey(random: Generator, low: int, high: int) -> Colour:
    level = int(random.integers(low, high))
    red, green, blue = (int(level + random.integers(-6, 7)) for _ in range(3))
    return red, green, blue
