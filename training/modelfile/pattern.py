"""The generated picture whose expected embedding every model file carries for the service's self-test."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def draw_pattern(height: int, width: int) -> NDArray[np.uint8]:
    """A standing figure before a gradient, uint8 [height, width, 3], by integer arithmetic alone.

    It is near enough to a crop of a person to keep an int8 network within its calibrated ranges.
    """
    y, x, c = np.indices((height, width, 3))
    picture = 96 + 64 * x // width + 32 * y // height + 8 * c
    torso = (3 * height // 16 <= y) & (y < 9 * height // 16) & (width // 4 <= x) & (x < 3 * width // 4)
    legs = (9 * height // 16 <= y) & (y < 15 * height // 16) & (3 * width // 8 <= x) & (x < 5 * width // 8)
    across, down = 16 * (x - width // 2), 16 * (y - height // 8)
    head = across**2 * height**2 + down**2 * width**2 < (height * width) ** 2
    picture = np.where(torso, np.array([180, 60, 50])[c] + 20 * (y // 8 % 2), picture)
    picture = np.where(legs, np.array([40, 60, 120])[c] + 10 * (x // 4 % 2), picture)
    picture = np.where(head, np.array([210, 170, 140])[c], picture)
    pattern: NDArray[np.uint8] = picture.astype(np.uint8)
    return pattern
