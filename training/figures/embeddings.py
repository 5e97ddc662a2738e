"""Fig. 4: the test people's embeddings under each loss, in the plane."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.manifold import TSNE  # type: ignore[import-untyped]

from training.figures.style import MARKERS, PALETTE, as_picture, new_figure, styled

FEWEST = 5  # points of which a neighbourhood can be said
PERPLEXITY = 30.0


@dataclass(frozen=True)
class Scatter:
    """Points [N, 2] and the identity of each [N]."""

    points: NDArray[np.float32]
    identities: NDArray[np.int64]


def perplexity_of(count: int) -> float:
    """t-SNE's perplexity for so many points: 30, less where they are few."""
    return min(PERPLEXITY, (count - 1) / 3)


def project(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Embeddings [N, D] in the plane, [N, 2]: t-SNE (van der Maaten and Hinton, JMLR 2008), the same every time.

    Raises:
        ValueError: fewer than 5 embeddings.
    """
    if len(embeddings) < FEWEST:
        raise ValueError(f"a scatter of {len(embeddings)} pictures says nothing: give at least {FEWEST}")
    start = "pca" if embeddings.shape[1] > 1 else "random"
    tsne = TSNE(perplexity=perplexity_of(len(embeddings)), init=start, random_state=0)
    return np.asarray(tsne.fit_transform(embeddings), np.float32)


@styled
def draw_scatter(panels: Mapping[str, Scatter], title: str) -> Figure:
    """A panel for each loss, by its title; a colour and a marker for each identity, the same in all panels."""
    figure = new_figure(3.1 * len(panels) + 1.0, 3.6)
    every_axes = figure.subplots(1, len(panels), squeeze=False)[0]
    people = sorted({int(identity) for panel in panels.values() for identity in panel.identities})
    for axes, (name, panel) in zip(every_axes, panels.items(), strict=True):
        as_picture(axes)
        axes.spines[:].set_visible(True)
        axes.set_title(name)
        axes.margins(0.08)
        for number, identity in enumerate(people):
            x, y = panel.points[panel.identities == identity].T
            marker = MARKERS[number % len(MARKERS)]
            colour = PALETTE[number % len(PALETTE)]
            axes.scatter(x, y, s=28, c=colour, marker=marker, edgecolors="white", linewidths=0.4, label=str(identity))
    handles, labels = every_axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", title="identity", title_fontsize=8)
    figure.suptitle(title)
    return figure
