"""A picture that is drawn, the same everywhere: what a model makes of it is written in its file."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def draw_pattern(height: int, width: int) -> NDArray[np.uint8]:
    """A drawn figure, uint8 [height, width, 3], whose embedding every model file carries.

    Integer arithmetic only, so that it is the same to the bit wherever it is drawn.
    """
    y, x, c = np.ogrid[:height, :width, :3]
    picture = 96 + 64 * x // width + 32 * y // height + 8 * c
    torso = (3 * height // 16 <= y) & (y < 9 * height // 16) & (width // 4 <= x) & (x < 3 * width // 4)
    picture = np.where(torso, np.array([180, 60, 50]) + 20 * (y // 8 % 2), picture)
    legs = (9 * height // 16 <= y) & (y < 15 * height // 16) & (3 * width // 8 <= x) & (x < 5 * width // 8)
    picture = np.where(legs, np.array([40, 60, 120]) + 10 * (x // 4 % 2), picture)
    across = (16 * (x - width // 2)) ** 2 * height**2
    down = (16 * (y - height // 8)) ** 2 * width**2
    picture = np.where(across + down < (height * width) ** 2, np.array([210, 170, 140]), picture)
    return picture.astype(np.uint8)
