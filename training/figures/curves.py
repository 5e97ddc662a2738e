"""Figs. 6, 7 and 8, and cumulative match characteristics: what a run logged, as lines and bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from training.figures.style import MARKERS, PALETTE, new_figure, styled

Series = NDArray[np.float64]

CMC_RANKS = 20
MARKED_RANKS = (1, 5, 10, 20)  # the tables' ranks
TITLE_LETTERS = 12  # that an inch has room for
SMOOTHED_OVER = 40  # the curve's length over the window of its running mean
SUM = "sum"


@dataclass(frozen=True)
class Accuracy:
    """A model as it was measured while it trained: epochs [E], rank-1 and mAP [seeds, E] in [0, 1]."""

    title: str
    epochs: NDArray[np.int64]
    rank1: Series
    mAP: Series


@dataclass(frozen=True)
class Cmc:
    """A model's cumulative match characteristic [seeds, K] and its mAP [seeds], in [0, 1]."""

    title: str
    cmc: Series
    mAP: Series


@styled
def draw_accuracy(models: Sequence[Accuracy], data: str, queries: int | None = None) -> Figure:
    """Figs. 6 and 7: rank-1 over the epochs, and the mAP at the end, of each model; means over seeds, with their
    sample deviation where there are several.

    Args:
        queries: how many were asked, where it is known.
    """
    figure = new_figure(7.4, 3.2)
    curve, bars = figure.subplots(1, 2, width_ratios=(1.6, 1))
    for number, model in enumerate(models):
        colour = PALETTE[number % len(PALETTE)]
        mean, deviation = _over_seeds(100 * model.rank1)
        marker = MARKERS[number % len(MARKERS)]
        curve.plot(model.epochs, mean, color=colour, marker=marker, markersize=4, label=model.title)
        if deviation is not None:
            curve.fill_between(model.epochs, mean - deviation, mean + deviation, color=colour, alpha=0.15, lw=0)
        final, spread = _over_seeds(100 * model.mAP[:, -1:])
        bars.bar(number, final[0], 0.62, color=colour, yerr=None if spread is None else spread[0], capsize=3)
        above = final[0] + (0 if spread is None else spread[0])
        bars.annotate(f"{final[0]:.1f}", (number, above), (0, 3), textcoords="offset points", ha="center", fontsize=8)
    curve.set(xlabel="epoch", ylabel="rank-1 (%)", title="(a) Rank-1 while training")
    curve.xaxis.set_major_locator(MaxNLocator(integer=True))
    curve.legend(loc="best")
    bars.set(ylabel="mAP (%)", title="(b) mAP at the end", xlim=(-0.6, len(models) - 0.4))
    names = [model.title.replace(" ", "\n").replace("-attention", "-\nattention") for model in models]
    bars.set_xticks(range(len(models)), names)
    bars.grid(axis="x", visible=False)
    bars.margins(y=0.12)
    figure.suptitle(_measured_on(data, queries, [len(model.rank1) for model in models]))
    return figure


@styled
def draw_losses(panels: Mapping[str, Mapping[str, Series]], data: str) -> Figure:
    """Fig. 8: a panel for each run, by its title; of each part of its loss, by its name, the value at every
    iteration [T], faint, and its running mean, on a logarithmic scale. Several parts have their sum besides."""
    figure = new_figure(max(6.4, 3.0 * len(panels) + 0.6), 3.3)
    every_axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    lowest = np.inf
    names = [*dict.fromkeys(name for parts in panels.values() for name in parts), SUM]
    for axes, (title, parts) in zip(every_axes, panels.items(), strict=True):
        total = {SUM: np.sum(list(parts.values()), axis=0)} if len(parts) > 1 else {}
        for name, values in {**parts, **total}.items():
            colour = PALETTE[names.index(name)]
            iterations = np.arange(1, len(values) + 1)
            axes.plot(iterations, values, color=colour, alpha=0.2, linewidth=0.6)
            smooth = running_mean(values)
            axes.plot(iterations, smooth, color=colour, label=name.replace("_", "-"))
            lowest = min(lowest, smooth[smooth > 0].min(initial=np.inf))
        axes.set(xlabel="iteration", title=title)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        # Losses fall: where there are many parts, the free corner is the upper right one.
        axes.legend(**({"loc": "lower left"} if len(names) <= 3 else {"loc": "upper right", "ncols": 3}))
    every_axes[0].set_ylabel("loss")
    if np.isfinite(lowest):  # a hinge that every triplet satisfies is zero, and has no logarithm
        every_axes[0].set_yscale("log", nonpositive="mask")
        every_axes[0].set_ylabel("loss (log scale)")
        every_axes[0].set_ylim(bottom=lowest / 3)  # single batches fall far below what can be learnt from them
        every_axes[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        every_axes[0].yaxis.set_major_formatter("{x:g}")
        every_axes[0].yaxis.set_minor_formatter(NullFormatter())
    said = f"Data: {data}, training part. Loss of every iteration, faint, and its running mean"
    figure.suptitle(fill(said, int(TITLE_LETTERS * figure.get_figwidth())))
    return figure


@styled
def draw_cmc(models: Sequence[Cmc], data: str, queries: int | None = None) -> Figure:
    """The share of queries with a match among the first k, k = 1 ... 20, of each model; means over seeds, with their
    sample deviation where there are several. `queries` as for `draw_accuracy`."""
    figure = new_figure(5.2, 3.6)
    axes = figure.subplots()
    for number, model in enumerate(models):
        shown, deviation = _over_seeds(100 * model.cmc[:, :CMC_RANKS])
        ranks = np.arange(1, len(shown) + 1)
        label = f"{model.title}: rank-1 {shown[0]:.1f}, mAP {100 * model.mAP.mean():.1f}"
        colour, marker = PALETTE[number % len(PALETTE)], MARKERS[number % len(MARKERS)]
        marked = [rank - 1 for rank in MARKED_RANKS if rank <= len(shown)]
        axes.plot(ranks, shown, color=colour, marker=marker, markersize=5, markevery=marked, lw=1.2, label=label)
        if deviation is not None:
            axes.fill_between(ranks, shown - deviation, shown + deviation, color=colour, alpha=0.15, lw=0)
    axes.set(xlabel="rank k", ylabel="queries with a match among the first k (%)")
    axes.set_title(_measured_on(data, queries, [len(model.cmc) for model in models]), fontsize=9)
    axes.set_xticks([1, *range(5, CMC_RANKS + 1, 5)])
    axes.legend(loc="lower right")
    return figure


def running_mean(values: Series) -> Series:
    """The mean over the values around each, [T] -> [T]; near the ends over those that there are."""
    reach = len(values) // (2 * SMOOTHED_OVER)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(index - reach, 0), np.minimum(index + reach + 1, len(values))
    return np.asarray((sums[high] - sums[low]) / (high - low))


def _measured_on(data: str, queries: int | None, seeds: Sequence[int]) -> str:
    """A title that says what was asked, and over how many seeds of each model it is a mean."""
    asked = f", {queries:,} queries" if queries is not None else ""
    fewest, most = min(seeds), max(seeds)
    if most == 1:
        return f"Data: {data}, test part{asked}; one seed"
    number = f"{most}" if fewest == most else f"{fewest} to {most}"
    return f"Data: {data}, test part{asked}; {number} seeds, mean ± deviation"


def _over_seeds(values: Series) -> tuple[Series, Series | None]:
    """Mean and sample deviation [E] of [seeds, E]; no deviation of one seed."""
    return values.mean(axis=0), values.std(axis=0, ddof=1) if len(values) > 1 else None
