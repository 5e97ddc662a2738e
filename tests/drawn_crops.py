"""Drawn pedestrians: the same number wears the same clothes, another view stands a little elsewhere."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image, ImageDraw

PALETTE = [
    (200, 40, 40),
    (40, 160, 60),
    (40, 70, 200),
    (230, 200, 40),
    (150, 50, 170),
    (240, 240, 240),
    (30, 30, 30),
    (240, 130, 20),
]


def person(number: int, view: int = 0, size: tuple[int, int] = (64, 128)) -> Image.Image:
    """Figure `number` (64 of them differ in shirt and trousers) in one of its views."""
    width, height = size
    image = Image.new("RGB", size, (118 + view % 5, 122, 126))
    draw = ImageDraw.Draw(image)
    shift = view % 3 - 1
    shirt, trousers = PALETTE[number % 8], PALETTE[number // 8 % 8]
    draw.ellipse((width * 3 // 8 + shift, height // 16, width * 5 // 8 + shift, height * 3 // 16), (210, 170, 140))
    draw.rectangle((width // 4 + shift, height * 3 // 16, width * 3 // 4 + shift, height * 9 // 16), shirt)
    draw.rectangle((width * 3 // 8 + shift, height * 9 // 16, width * 5 // 8 + shift, height * 15 // 16), trousers)
    return image


def encoded(image: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    """The bytes of `image` as a file."""
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def crop(number: int, view: int = 0) -> bytes:
    """A file that shows figure `number`."""
    return encoded(person(number, view))


def uploads(*files: bytes) -> list[tuple[str, tuple[str, bytes, str]]]:
    """Files as the `images` of a multipart form."""
    return [("images", (f"{index}.png", data, "image/png")) for index, data in enumerate(files)]
