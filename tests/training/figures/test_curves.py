from __future__ import annotations

import numpy as np
import pytest

from tests.training.figures.reading_back import legend, points, title
from training.figures.curves import Accuracy, Cmc, draw_accuracy, draw_cmc, draw_losses, running_mean


@pytest.mark.parametrize("length", [1, 7, 80, 333])
def test_the_running_mean_is_that_of_a_loop(length: int) -> None:
    values = np.random.default_rng(length).random(length)
    reach = length // 80
    expected = [values[max(0, i - reach) : i + reach + 1].mean() for i in range(length)]
    np.testing.assert_allclose(running_mean(values), expected)


def test_accuracy_shows_the_mean_over_seeds_and_the_last_map() -> None:
    epochs = np.array([5, 10])
    one = Accuracy("one", epochs, np.array([[0.2, 0.4]]), np.array([[0.1, 0.3]]))
    two = Accuracy("two", epochs, np.array([[0.2, 0.4], [0.4, 0.8]]), np.array([[0.1, 0.5], [0.1, 0.7]]))
    curve, bars = draw_accuracy([one, two], "drawn").get_axes()
    np.testing.assert_allclose(points(curve, 0), [[5, 20], [10, 40]])
    np.testing.assert_allclose(points(curve, 1)[:, 1], [30, 60])
    assert len(curve.collections) == 1  # a band of the one that has seeds
    assert [bar.get_height() for bar in bars.patches] == pytest.approx([30, 60])  # type: ignore[attr-defined]
    assert [text.get_text() for text in bars.texts] == ["30.0", "60.0"]
    assert legend(curve) == ["one", "two"]
    assert title(draw_accuracy([one, two], "drawn", 36)) == (
        "Data: drawn, test part, 36 queries; 1 to 2 seeds, mean ± deviation"
    )
    assert title(draw_accuracy([one], "drawn")) == "Data: drawn, test part; one seed"


def test_losses_have_a_sum_where_there_are_several() -> None:
    both = {"cross_entropy": np.array([3.0, 2.0]), "triplet": np.array([1.0, 0.0])}
    figure = draw_losses({"both losses": both, "triplet alone": {"triplet": np.array([1.0, 0.5])}}, "drawn")
    first, second = figure.get_axes()
    assert [legend(axes) for axes in (first, second)] == [["cross-entropy", "triplet", "sum"], ["triplet"]]
    np.testing.assert_allclose(points(first, 5)[:, 1], [4, 2])
    assert first.get_lines()[3].get_color() == second.get_lines()[1].get_color()
    assert first.get_yscale() == "log"


def test_zeros_have_no_logarithm() -> None:
    zeros, ones = {"triplet": np.zeros(3)}, {"triplet": np.ones(3)}
    assert [axes.get_yscale() for axes in draw_losses({"zeros": zeros}, "drawn").get_axes()] == ["linear"]
    figure = draw_losses({"zeros": zeros, "ones": ones}, "drawn")
    assert [axes.get_yscale() for axes in figure.get_axes()] == ["log", "log"]
    assert figure.get_axes()[0].get_ylim()[0] == pytest.approx(1 / 3)


def test_cmc_goes_to_rank_20_in_percent() -> None:
    cmc = np.linspace(0.5, 1, 50)[np.newaxis]
    (axes,) = draw_cmc([Cmc("ours", cmc, np.array([0.4]))], "drawn", 36).get_axes()
    np.testing.assert_array_equal(points(axes, 0)[:, 0], np.arange(1, 21))
    assert points(axes, 0)[0, 1] == 50
    assert legend(axes)[0] == "ours: rank-1 50.0, mAP 40.0"
    assert axes.get_title() == "Data: drawn, test part, 36 queries; one seed"
    assert axes.get_lines()[0].get_markevery() == [0, 4, 9, 19]
    assert len(axes.collections) == 0


def test_cmc_is_a_mean_over_seeds_with_a_band() -> None:
    seeds = Cmc("ours", np.array([[0.2, 0.4], [0.4, 0.8]]), np.array([0.1, 0.3]))
    (axes,) = draw_cmc([seeds], "drawn").get_axes()
    np.testing.assert_allclose(points(axes, 0), [[1, 30], [2, 60]])
    assert legend(axes) == ["ours: rank-1 30.0, mAP 20.0"]
    assert len(axes.collections) == 1
    assert axes.get_lines()[0].get_markevery() == [0]
    assert axes.get_title() == "Data: drawn, test part; 2 seeds, mean ± deviation"
