"""How every figure looks, and how it is written: PNG and SVG, the same bytes for the same input."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.loop.files import make_folder, write_whole

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

# Okabe and Ito's palette, which colour-blind readers can tell apart, darkest contrasts first.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h")
RIGHT, WRONG, ASKED = "#009E73", "#CC3311", "#444444"
HEAT = "magma"  # of maps: perceptually even, and dark to light in grey too
AROUND = "RdBu_r"  # of what lies below and above a middle: blue, white, red
DPI = 200

STYLE: dict[RcKeyType, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same everywhere
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "figure.titlesize": 11,
    "svg.hashsalt": "resight",
}

P = ParamSpec("P")


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """`draw` under this style, whatever matplotlib's settings are; they stay as they were."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with rc_context(STYLE):
            return draw(*args, **kwargs)

    return drawn


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, whose parts make room for each other."""
    return Figure(figsize=(width, height), layout="constrained")


def as_picture(axes: Axes) -> None:
    """Axes that show a picture: no ticks, no grid, no frame."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    axes.spines[:].set_visible(False)


def frame(axes: Axes, colour: str) -> None:
    """A frame around a picture."""
    axes.spines[:].set_visible(True)
    axes.spines[:].set(color=colour, linewidth=2.5)


def save(figure: Figure, folder: Path, stem: str) -> list[Path]:
    """Write `stem`.png and `stem`.svg into `folder`, each whole or not at all."""
    make_folder(folder)
    paths = []
    for suffix, metadata in (("png", None), ("svg", {"Date": None})):
        path = folder / f"{stem}.{suffix}"
        with rc_context(STYLE):
            write_whole(path, partial(figure.savefig, format=suffix, dpi=DPI, metadata=metadata))
        paths.append(path)
    return paths
