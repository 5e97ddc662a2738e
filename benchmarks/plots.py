"""The pictures of docs/performance.md, in the style of the figures of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.ticker import LogLocator, NullLocator

from benchmarks import engine, growth, search, service
from benchmarks.results import Figure, Results
from training.figures.style import MARKERS, PALETTE, new_figure, save, styled

WIDTH, HEIGHT = 7.0, 3.2
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK = PALETTE
WINE, BROWN, OLIVE, GREY = "#882255", "#8C564B", "#999933", "#888888"
LOOKS = {  # colour and opacity in every picture, whoever else is in it
    "Resight": (BLUE, 1),
    "Resight, int8": (BLUE, 1),
    "Resight, fp32": (BLUE, 0.5),
    search.OURS: (BLUE, 1),
    "Resight, exact": (BLUE, 0.5),
    search.OURS_COMPRESSED: (SKY, 1),
    "Resight, hnsw": (SKY, 0.5),
    "ONNX Runtime, int8": (VERMILION, 1),
    "ONNX Runtime, fp32": (VERMILION, 0.5),
    "OpenVINO, int8": (GREEN, 1),
    "OpenVINO, fp32": (GREEN, 0.6),
    "OpenVINO in bf16, fp32": (GREEN, 0.3),
    "PyTorch, fp32": (PURPLE, 1),
    "PyTorch compiled, fp32": (PURPLE, 0.5),
    "LitServe": (ORANGE, 1),
    "Ray Serve": (WINE, 1),
    "plain FastAPI handler": (GREY, 1),
    "FAISS flat": (BROWN, 1),
    "FAISS flat, tuned": (BROWN, 0.6),
    "FAISS fp16": (BROWN, 0.3),
    "hnswlib": (OLIVE, 1),
    "usearch": (BLACK, 1),
}
UNKNOWN = (GREY, 0.5)


@styled
def bars(figures: Sequence[Figure], title: str, axis: str, logarithmic: bool = False) -> Picture:
    """Cases along, a bar a subject; the whiskers are the least and the most."""
    picture = new_figure(WIDTH, HEIGHT)
    axes = picture.subplots()
    subjects = list(dict.fromkeys(figure.subject for figure in figures))
    cases = list(dict.fromkeys(figure.case for figure in figures))
    width = 0.8 / len(subjects)
    for place, subject in enumerate(subjects):
        colour, alpha = LOOKS.get(subject, UNKNOWN)
        own = [figure for figure in figures if figure.subject == subject]
        at = [cases.index(figure.case) + (place - (len(subjects) - 1) / 2) * width for figure in own]
        below = [figure.median - min(figure.values) for figure in own]
        above = [max(figure.values) - figure.median for figure in own]
        axes.bar(
            at,
            [figure.median for figure in own],
            0.92 * width,
            yerr=(below, above),
            error_kw={"elinewidth": 0.8, "ecolor": "#555555"},
            color=colour,
            alpha=alpha,
            label=subject,
        )
    axes.set_xticks(range(len(cases)), [case.replace(", ", "\n") for case in cases])
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="x", visible=False)
    axes.set(ylabel=axis, title=title)
    if logarithmic:
        _logarithmic(axes)
    picture.legend(loc="outside lower center", ncols=4)
    return picture


def _logarithmic(axes: Axes) -> None:
    """Values upwards by powers of ten, written out."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())


@styled
def growing(results: Results) -> Picture:
    """The cost of a query against the size of the gallery, both logarithmic."""
    picture = new_figure(WIDTH, HEIGHT)
    axes = picture.subplots()
    figures = results.of(growth.TIME)
    sizes = [int(figure.case.partition(" ")[0].replace(",", "")) for figure in figures]
    medians = [figure.median for figure in figures]
    axes.loglog(sizes, medians, marker=MARKERS[0], color=PALETTE[0], label="measured")
    for power, dashes, place in ((0.6, "--", 1), (1.0, ":", 2)):
        line = [medians[0] * (size / sizes[0]) ** power for size in sizes]
        axes.loglog(sizes, line, dashes, color=PALETTE[place], linewidth=1, label=f"as N^{power:g}")
    _logarithmic(axes)
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(xlabel="crops in the gallery", ylabel=growth.TIME, title="One query, the whole use case")
    axes.legend()
    return picture


def draw(found: Mapping[str, Results], folder: Path) -> list[str]:
    """Writes every picture that there are figures for, as SVG; returns the names without the suffix."""
    pictures = {}
    if "engine" in found:
        pictures["engine"] = bars(found["engine"].of(engine.RATE), "Engines on the CPU", engine.RATE)
    if "service" in found:
        behind = [figure for figure in found["service"].of(service.RATE) if figure.subject != service.RAW]
        same = {figure.case for figure in behind if figure.subject != service.OURS}
        shown = [figure for figure in behind if not same or figure.case in same]
        pictures["service"] = bars(shown, "The same file behind HTTP", service.RATE)
    for name in found:
        if name.startswith("search-"):
            crops = int(found[name].settings["crops"])
            title = f"Search of {crops:,} x {int(found[name].settings['dim']):,}"
            pictures[name] = bars(found[name].of(search.TIME), title, search.TIME, logarithmic=True)
    for name in ("growth-large", "growth"):
        if name in found:
            pictures["growth"] = growing(found[name])
            break
    for name, picture in pictures.items():
        for path in save(picture, folder, name):
            if path.suffix == ".png":
                path.unlink()
    return list(pictures)
