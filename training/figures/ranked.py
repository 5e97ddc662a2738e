"""Ranked lists: queries and the gallery's nearest pictures, right ones and wrong ones framed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from training.data.dataset import UNKNOWN_CAMERA, Sample
from training.figures.style import ASKED, RIGHT, WRONG, as_picture, frame, new_figure, styled

TOP = 10
Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Hit:
    """A gallery picture in a list: its index, its distance in [0, 1], and whether it is the query's person."""

    index: int
    distance: float
    right: bool


@dataclass(frozen=True)
class RankedList:
    """A query's title and picture [H, W, 3], how many matches it has in the gallery, and its answers, the nearest
    first, with their pictures."""

    title: str
    query: Picture
    matches: int
    answers: tuple[tuple[Hit, Picture], ...]


def nearest(
    query: Sample, embedding: NDArray[np.float32], gallery: Sequence[Sample], embeddings: NDArray[np.float32]
) -> tuple[Hit, ...]:
    """The first ten answers, as the protocol counts them: pictures of the query's person by its own camera are
    left out (no camera that is unknown is the same).

    Args:
        embedding: of the query, unit length [D].
        gallery: without junk.
        embeddings: of the gallery, unit length [G, D].
    """
    same_person, same_camera = _same(query, gallery)
    distances = np.linalg.norm(embeddings - embedding, axis=1) / 2
    distances[same_person & same_camera] = np.inf
    order = np.argsort(distances, kind="stable")[:TOP]
    kept = order[np.isfinite(distances[order])]
    return tuple(Hit(int(index), float(distances[index]), bool(same_person[index])) for index in kept)


def count_matches(query: Sample, gallery: Sequence[Sample]) -> int:
    """How many pictures of the gallery the protocol counts as right."""
    same_person, same_camera = _same(query, gallery)
    return int((same_person & ~same_camera).sum())


@styled
def draw_ranked(lists: Sequence[RankedList], title: str) -> Figure:
    """A row for each query: the query with its number of matches, then its answers with their distances; right ones
    in a green frame with a tick, wrong ones in a red one with a cross."""
    figure = new_figure(0.75 * (TOP + 1) + 0.5, 1.72 * len(lists) + 0.7)
    # The narrow column keeps the query apart from the answers.
    grid = figure.subplots(len(lists), TOP + 2, squeeze=False, width_ratios=[1, 0.12, *[1] * TOP])
    for axes in grid.flat:
        axes.set_axis_off()
    for row, ranked in zip(grid, lists, strict=True):
        matches = f"{ranked.matches} match{'' if ranked.matches == 1 else 'es'}"
        _show(row[0], ranked.query, ASKED, f"{ranked.title}\n{matches}")
        for axes, (hit, picture) in zip(row[2:], ranked.answers, strict=False):
            colour, mark = (RIGHT, "✓") if hit.right else (WRONG, "✗")
            _show(axes, picture, colour, f"{mark} {hit.distance:.2f}")
            axes.xaxis.label.set(color=colour, fontsize=8)
    grid[0, 0].set_title("query", fontsize=8)
    for rank, axes in enumerate(grid[0, 2:], start=1):
        axes.set_title(str(rank), fontsize=8)
    legend = "✓ green: the same person.  ✗ red: another.  Below: distance in [0, 1]."
    figure.suptitle(f"{title}\n{legend}", fontsize=9)
    return figure


def _same(query: Sample, gallery: Sequence[Sample]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Of each picture of the gallery [G]: whether it is the query's person, and of its camera."""
    same_person = np.array([sample.identity == query.identity for sample in gallery], np.bool_)
    same_camera = np.array([sample.camera == query.camera != UNKNOWN_CAMERA for sample in gallery], np.bool_)
    return same_person, same_camera


def _show(axes: Axes, picture: Picture, colour: str, label: str) -> None:
    axes.set_axis_on()
    as_picture(axes)
    axes.imshow(picture)
    frame(axes, colour)
    axes.set_xlabel(label, fontsize=7, labelpad=3)
