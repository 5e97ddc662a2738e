"""What a figure shows, read back from it."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray


def points(axes: Axes, line: int) -> NDArray[np.float64]:
    """The points [N, 2] of a line."""
    return np.stack([np.asarray(values, np.float64) for values in axes.get_lines()[line].get_data()], axis=1)


def legend(axes: Axes) -> list[str]:
    """The texts of the legend."""
    found = axes.get_legend()
    assert found is not None
    return [text.get_text() for text in found.get_texts()]


def title(figure: Figure) -> str:
    """What stands above the whole figure."""
    return figure.get_suptitle()
