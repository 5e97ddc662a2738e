"""RGB colours as three integers from 0 to 255."""

from __future__ import annotations

Colour = tuple[int, int, int]


def scaled(colour: Colour, factor: float) -> Colour:
    """Darker or lighter."""
    red, green, blue = (min(255, int(channel * factor)) for channel in colour)
    return red, green, blue


def mixed(a: Colour, b: Colour) -> Colour:
    """Half of each."""
    red, green, blue = ((x + y) // 2 for x, y in zip(a, b, strict=True))
    return red, green, blue
