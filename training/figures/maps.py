"""Figs. 9, 10 and 11: what the network makes of a picture, stage by stage, and what its attention looks at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from training.figures.style import HEAT, as_picture, new_figure, styled

CHANNELS = 3  # of each stage, beside the mean
MARK = "#56B4E9"
Picture = NDArray[np.uint8]
Map = NDArray[np.float32]


@styled
def draw_stages(picture: Picture, stages: Mapping[str, Map]) -> Figure:
    """Fig. 9: the picture [H, W, 3] and, of each stage's map [C, h, w] by its name, the mean over the channels and
    its three strongest channels, each from its least to its greatest value."""
    figure = new_figure(1.05 * (len(stages) + 1) + 0.4, 2.0 * (CHANNELS + 1))
    cells = figure.add_gridspec(CHANNELS + 1, len(stages) + 1)
    original = figure.add_subplot(cells[:, 0])
    as_picture(original)
    original.imshow(picture)
    original.set_title("picture", fontsize=8)
    grid = np.array(
        [[figure.add_subplot(cells[row, 1 + n]) for n in range(len(stages))] for row in range(CHANNELS + 1)]
    )
    for axes in grid.flat:
        as_picture(axes)
    for column, (name, maps) in enumerate(stages.items()):
        channels, height, width = maps.shape
        grid[0, column].set_title(f"{name}\n{channels} × {height} × {width}", fontsize=8)
        strongest = strongest_channels(maps)
        for axes, shown in zip(grid[:, column], [maps.mean(axis=0), *maps[strongest]], strict=False):
            axes.imshow(shown, cmap=HEAT, aspect=_aspect(picture, shown))
        for axes, channel in zip(grid[1:, column], strongest, strict=False):
            axes.set_xlabel(f"channel {channel}", fontsize=7, labelpad=2)
        for axes in grid[1 + len(strongest) :, column]:
            axes.set_axis_off()
    grid[0, 0].set_ylabel("mean over channels", fontsize=8)
    return figure


def strongest_channels(maps: Map) -> list[int]:
    """The (at most three) channels of [C, h, w] with the greatest mean activation, the greatest first."""
    return [int(channel) for channel in np.argsort(-maps.mean(axis=(1, 2)), kind="stable")[:CHANNELS]]


@styled
def draw_kernel(picture: Picture, attention: Map, shape: tuple[int, int], position: int) -> Figure:
    """Fig. 10: one picture [H, W, 3] with a position marked, its attention [L, L], and the row of that position in
    the shape (h, w) of the map, L = h * w; weights as multiples of 1 / L, which is attending to all alike."""
    height, width = shape
    weights = attention * attention.shape[1]
    row = weights[position].reshape(shape)
    figure = new_figure(7.2, 3.4)
    original, matrix, kernel = figure.subplots(1, 3, width_ratios=(1, 2, 1))
    for axes in (original, kernel):
        as_picture(axes)
    original.imshow(picture, extent=(-0.5, width - 0.5, height - 0.5, -0.5), aspect=_aspect(picture, row))
    original.set_title(f"picture,\nposition {position} marked")
    shown = matrix.imshow(weights, cmap=HEAT, vmin=0)
    matrix.grid(False)
    matrix.set(
        xlabel="position attended to",
        ylabel="position that attends",
        title=f"attention,\n{len(weights)} × {len(weights)}",
    )
    matrix.add_patch(_box(-0.5, position - 0.5, len(weights), 1))
    figure.colorbar(shown, ax=matrix, label="weight × L (1: an even share)", shrink=0.85)
    kernel.imshow(row, cmap=HEAT, vmin=0, vmax=weights.max(), aspect=_aspect(picture, row))
    kernel.set_title(f"row {position}\nas a {height} × {width} map")
    for axes in (original, kernel):
        axes.add_patch(_box(position % width - 0.5, position // width - 0.5, 1, 1))
    return figure


@styled
def draw_people(pictures: Sequence[Picture], received: Sequence[Map]) -> Figure:
    """Fig. 11: each picture [H, W, 3], and over it the attention that each of its positions receives [h, w], as
    multiples of what it would be if all were attended to alike."""
    figure = new_figure(0.95 * len(pictures) + 0.9, 4.0)
    grid = figure.subplots(2, len(pictures), squeeze=False)
    most = max(float(weights.max()) for weights in received)
    for axes in grid.flat:
        as_picture(axes)
    for (plain, covered), picture, weights in zip(grid.T, pictures, received, strict=True):
        plain.imshow(picture)
        covered.imshow(picture.mean(axis=2), cmap="gray", vmin=0, vmax=255)  # colours would mix with the map's
        rows, columns = picture.shape[:2]
        extent = (-0.5, columns - 0.5, rows - 0.5, -0.5)
        shown = covered.imshow(
            weights, cmap=HEAT, vmin=0, vmax=most, alpha=0.55, extent=extent, interpolation="bilinear"
        )
    figure.colorbar(shown, ax=grid.ravel().tolist(), label="attention received × L (1: an even share)", shrink=0.8)
    return figure


def received_attention(attention: Map, shape: tuple[int, int]) -> Map:
    """The mean weight that the positions give to each, [L, L] -> [h, w], as a multiple of 1 / L."""
    return np.asarray(attention.mean(axis=0) * attention.shape[1], np.float32).reshape(shape)


def _aspect(picture: Picture, shown: Map) -> float:
    """Of a map's cells, so that it has its picture's outline."""
    (rows, columns), (height, width) = picture.shape[:2], shown.shape
    return float((rows / height) / (columns / width))


def _box(x: float, y: float, width: float, height: float) -> Rectangle:
    return Rectangle((x, y), width, height, fill=False, edgecolor=MARK, linewidth=1.5, clip_on=False)
