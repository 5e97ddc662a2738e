from __future__ import annotations

from pathlib import Path

import matplotlib
import pytest
from matplotlib.figure import Figure
from PIL import Image

from training.figures.style import new_figure, save, styled


@styled
def draw(title: str) -> Figure:
    figure = new_figure(2, 1)
    axes = figure.subplots()
    axes.plot([1, 2], [1, 3])
    axes.set_title(title)
    return figure


def test_a_style_changes_no_setting() -> None:
    before = dict(matplotlib.rcParams)
    assert draw("x").get_axes()[0].spines["top"].get_visible() is False
    assert dict(matplotlib.rcParams) == before


def test_a_figure_is_written_as_png_and_svg(tmp_path: Path) -> None:
    paths = save(draw("x"), tmp_path / "new", "figure")
    assert [path.name for path in paths] == ["figure.png", "figure.svg"]
    assert sorted(paths) == sorted((tmp_path / "new").iterdir())
    with Image.open(paths[0]) as image:
        assert image.size == (400, 200)
    assert paths[1].read_text().startswith("<?xml")


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_same_figure_is_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    first, second, other = (tmp_path / name for name in ("first", "second", "other"))
    for folder, title in ((first, "x"), (second, "x"), (other, "y")):
        save(draw(title), folder, "figure")
    written = [(folder / f"figure.{suffix}").read_bytes() for folder in (first, second, other)]
    assert written[0] == written[1] != written[2]
