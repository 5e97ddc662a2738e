"""Figs. 9, 10 and 11: what the network makes of a picture, stage by stage, and what its attention looks at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from training.figures.style import AROUND, HEAT, as_picture, new_figure, styled

CHANNELS = 3  # of each stage, beside the mean
CHOSEN = "Below the means:\nof each stage the\nthree channels\nwith the greatest\nmean, the greatest\nfirst."
SCALED = "Each map by itself,\nfrom its least to its\ngreatest value, as\nwritten below it."
LEAST_SPAN = 0.01  # of a scale around 1: smaller differences are rounding's
OPACITY = 0.75  # of what lies farthest from an even share
Picture = NDArray[np.uint8]
Map = NDArray[np.float32]


@styled
def draw_stages(picture: Picture, stages: Mapping[str, Map], title: str) -> Figure:
    """Fig. 9: the picture [H, W, 3] and, of each stage's map [C, h, w] by its name, the mean over the channels and
    its three strongest channels, each from its least to its greatest value, which stand below it."""
    figure = new_figure(1.15 * (len(stages) + 1), 2.05 * (CHANNELS + 1) + 0.3)
    grid = figure.subplots(CHANNELS + 1, len(stages) + 1)
    for axes in grid.flat:
        as_picture(axes)
    grid[0, 0].imshow(picture)
    grid[0, 0].set_title("picture", fontsize=8)
    for column, (name, maps) in zip(grid[:, 1:].T, stages.items(), strict=True):
        channels, height, width = maps.shape
        column[0].set_title(f"{name}\n{channels} × {height} × {width}", fontsize=8)
        strongest = strongest_channels(maps)
        _show_map(column[0], maps.mean(axis=0), picture, "mean of all")
        for axes, channel in zip(column[1:], strongest, strict=False):
            _show_map(axes, maps[channel], picture, f"channel {channel}")
        for axes in column[1 + len(strongest) :]:
            axes.set_axis_off()
    for axes, text in zip(grid[1:3, 0], (CHOSEN, SCALED), strict=True):
        axes.text(0, 1, text, fontsize=7, va="top", transform=axes.transAxes, in_layout=False)
    grid[3, 0].set_axis_off()
    bar = figure.colorbar(ScalarMappable(Normalize(), HEAT), cax=grid[3, 0].inset_axes((0, 0.1, 0.14, 0.8)))
    bar.set_ticks([0, 1], labels=["least", "greatest"])
    figure.suptitle(title, fontsize=9)
    return figure


def strongest_channels(maps: Map) -> list[int]:
    """The (at most three) channels of [C, h, w] with the greatest mean activation, the greatest first."""
    return [int(channel) for channel in np.argsort(-maps.mean(axis=(1, 2)), kind="stable")[:CHANNELS]]


@styled
def draw_kernel(picture: Picture, attention: Map, shape: tuple[int, int], position: int, title: str) -> Figure:
    """Fig. 10: one picture [H, W, 3] with a position marked, its attention [L, L], and the row of that position in
    the shape (h, w) of the map, L = h * w; weights as multiples of 1 / L, which is attending to all alike."""
    height, width = shape
    weights = attention * attention.shape[1]
    row = weights[position].reshape(shape)
    figure = new_figure(8.2, 3.9)
    original, matrix, kernel = figure.subplots(1, 3, width_ratios=(1, 2, 1))
    for axes in (original, kernel):
        as_picture(axes)
    original.imshow(picture, extent=(-0.5, width - 0.5, height - 0.5, -0.5), aspect=_aspect(picture, row))
    original.set_title(f"picture,\nposition {position} marked")
    norm = around_one([weights])
    matrix.imshow(weights, cmap=AROUND, norm=norm)
    matrix.grid(False)
    matrix.set(
        xlabel="position attended to",
        ylabel="position that attends",
        title=f"attention, {len(weights)} × {len(weights)},\nrow {position} marked",
    )
    # Beside the row and not around it: of many, a row is as thin as a line.
    edges = matrix.get_yaxis_transform()
    matrix.plot(1.03, position, "<", color="black", markersize=5, transform=edges, clip_on=False)
    _shares(figure, matrix, norm, "weight")
    kernel.imshow(row, cmap=AROUND, norm=norm, aspect=_aspect(picture, row))
    kernel.set_title(f"row {position}\nas a {height} × {width} map")
    for axes in (original, kernel):
        axes.add_patch(_cell(position % width, position // width))
    figure.suptitle(title, fontsize=9)
    return figure


@styled
def draw_people(names: Sequence[str], pictures: Sequence[Picture], received: Sequence[Map], title: str) -> Figure:
    """Fig. 11: each person's name, picture [H, W, 3], and over it the attention that each of its positions receives
    [h, w], as multiples of what it would be if all were attended to alike: the farther from that, the less of the
    picture shines through."""
    figure = new_figure(0.95 * len(pictures) + 1.2, 4.5)
    grid = figure.subplots(2, len(pictures), squeeze=False)
    norm = around_one(received)
    for axes in grid.flat:
        as_picture(axes)
    for (plain, covered), name, picture, weights in zip(grid.T, names, pictures, received, strict=True):
        plain.imshow(picture)
        plain.set_title(name, fontsize=8)
        covered.imshow(picture.mean(axis=2), cmap="gray", vmin=0, vmax=255)  # colours would mix with the map's
        rows, columns = picture.shape[:2]
        extent = (-0.5, columns - 0.5, rows - 0.5, -0.5)
        alpha = OPACITY * np.abs(2 * np.asarray(norm(weights)) - 1)
        covered.imshow(weights, cmap=AROUND, norm=norm, alpha=alpha, extent=extent, interpolation="bilinear")
    grid[0, 0].set_ylabel("picture")
    grid[1, 0].set_ylabel("attention received")
    _shares(figure, grid.ravel().tolist(), norm, "attention received")
    least, most = (extreme([extreme(weights) for weights in received]) for extreme in (np.min, np.max))
    figure.suptitle(f"{title}; attention from {least:.3g} to {most:.3g} times an even share", fontsize=9)
    return figure


def around_one(maps: Sequence[Map]) -> LogNorm:
    """One scale for multiples of an even share: 1 is its middle, twice lies as far above as half lies below, and what
    is less than its lower end, zero too, has that end's colour."""
    most = 1 + max(LEAST_SPAN, *(float(np.abs(weights - 1).max()) for weights in maps))
    return LogNorm(1 / most, most, clip=True)


def received_attention(attention: Map, shape: tuple[int, int]) -> Map:
    """The mean weight that the positions give to each, [L, L] -> [h, w], as a multiple of 1 / L."""
    return np.asarray(attention.mean(axis=0) * attention.shape[1], np.float32).reshape(shape)


def _aspect(picture: Picture, shown: Map) -> float:
    """Of a map's cells, so that it has its picture's outline."""
    (rows, columns), (height, width) = picture.shape[:2], shown.shape
    return float((rows / height) / (columns / width))


def _shares(figure: Figure, beside: Axes | list[Axes], norm: LogNorm, of: str) -> None:
    """The bar of a scale around 1."""
    assert norm.vmax is not None
    ticks = [norm.vmax**power for power in (-1, -0.5, 0, 0.5, 1)]
    label = f"{of} × L (1: an even share; log scale)"
    bar = figure.colorbar(ScalarMappable(norm, AROUND), ax=beside, label=label, shrink=0.85)
    bar.set_ticks(ticks, labels=[f"≤ {ticks[0]:.3g}", *(f"{tick:.3g}" for tick in ticks[1:])])
    bar.minorticks_off()


def _show_map(axes: Axes, shown: Map, picture: Picture, name: str) -> None:
    """A map by itself, in its picture's outline, with its name and its least and greatest value below."""
    axes.imshow(shown, cmap=HEAT, aspect=_aspect(picture, shown))
    axes.set_xlabel(f"{name}\n{shown.min():.2g} to {shown.max():.2g}", fontsize=7, labelpad=2)


def _cell(x: int, y: int) -> Rectangle:
    """A frame around a cell of a map that can be seen on every colour."""
    frame = Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=1.5, clip_on=False)
    frame.set_path_effects([withStroke(linewidth=3.5, foreground="white")])
    return frame
