from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes
from numpy.typing import NDArray

from tests.training.figures.reading_back import points, title
from training.figures.maps import (
    around_one,
    draw_kernel,
    draw_people,
    draw_stages,
    received_attention,
    strongest_channels,
)

PICTURE = np.arange(8 * 4 * 3, dtype=np.uint8).reshape(8, 4, 3)


def shown(axes: Axes, number: int = 0) -> NDArray[np.float64]:
    return np.asarray(axes.get_images()[number].get_array())


def attention(length: int) -> NDArray[np.float32]:
    weights = np.random.default_rng(0).random((length, length), np.float32)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


@pytest.mark.parametrize(("channels", "expected"), [(1, [0]), (5, [3, 0, 4])])
def test_the_strongest_channels_have_the_greatest_mean(channels: int, expected: list[int]) -> None:
    means = np.array([4, 1, 2, 9, 3], np.float32)[:channels]
    assert strongest_channels(np.broadcast_to(means[:, None, None], (channels, 2, 3))) == expected


def test_stages_show_the_picture_the_mean_and_the_strongest() -> None:
    maps = np.random.default_rng(1).random((6, 4, 2), np.float32)
    figure = draw_stages(PICTURE, {"res4": maps, "res5": maps[:2]}, "of a run")
    picture, mean, _, words, strongest, *_ = figure.get_axes()
    assert title(figure) == "of a run"
    assert "three channels" in words.texts[0].get_text()
    np.testing.assert_array_equal(shown(picture), PICTURE)
    assert mean.get_title() == "res4\n6 × 4 × 2"
    np.testing.assert_allclose(shown(mean), maps.mean(axis=0))
    first = int(maps.mean(axis=(1, 2)).argmax())
    np.testing.assert_allclose(shown(strongest), maps[first])
    assert strongest.get_xlabel() == f"channel {first}\n{maps[first].min():.2g} to {maps[first].max():.2g}"


def test_a_kernel_is_its_row_in_the_shape_of_the_map() -> None:
    weights = attention(8)
    figure = draw_kernel(PICTURE, weights, (4, 2), 5, "of a run")
    axes = figure.get_axes()
    assert title(figure) == "of a run"
    np.testing.assert_array_equal(shown(axes[0]), PICTURE)
    np.testing.assert_allclose(shown(axes[1]), 8 * weights, rtol=1e-6)
    np.testing.assert_allclose(shown(axes[2]), 8 * weights[5].reshape(4, 2), rtol=1e-6)
    box = axes[2].patches[0].get_bbox()  # type: ignore[attr-defined]
    assert (box.x0, box.y0) == (0.5, 1.5)  # position 5 is row 2, column 1
    assert points(axes[1], 0)[:, 1].tolist() == [5]  # the arrow beside the row
    matrix, row = (axes[number].get_images()[0] for number in (1, 2))
    assert row.get_clim() == matrix.get_clim() == pytest.approx((1 / (8 * weights.max()), 8 * weights.max()), rel=1e-5)


def test_attention_received_is_a_mean_over_those_who_attend() -> None:
    weights = attention(6)
    expected = [6 * np.mean([weights[j][i] for j in range(6)]) for i in range(6)]
    np.testing.assert_allclose(received_attention(weights, (3, 2)).ravel(), expected, rtol=1e-6)
    np.testing.assert_allclose(received_attention(np.full((6, 6), 1 / 6, np.float32), (2, 3)), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("values", "ends"),
    [((0.9, 1.05), (1 / 1.1, 1.1)), ((0.0, 4.0), (0.25, 4.0)), ((1.0, 1.0), (1 / 1.01, 1.01))],
    ids=["near even", "peaked", "even"],
)
def test_an_even_share_is_the_middle_of_the_scale(values: tuple[float, float], ends: tuple[float, float]) -> None:
    norm = around_one([np.full((2, 2), value, np.float32) for value in values])
    assert (norm.vmin, norm.vmax) == pytest.approx(ends, abs=1e-6)
    np.testing.assert_allclose(norm(np.array([0.0, 1.0])), [0, 0.5], atol=1e-6)


def test_people_share_one_scale_and_even_attention_covers_nothing() -> None:
    maps = [np.full((2, 2), value, np.float32) for value in (0.5, 1.0, 4.0)]
    figure = draw_people(["7", "8", "9"], [PICTURE] * 3, maps, "of a run")
    axes = figure.get_axes()
    assert title(figure) == "of a run; attention from 0.5 to 4 times an even share"
    assert [plain.get_title() for plain in axes[:3]] == ["7", "8", "9"]
    assert [first.get_ylabel() for first in (axes[0], axes[3])] == ["picture", "attention received"]
    np.testing.assert_array_equal(shown(axes[0]), PICTURE)
    opacities = []
    for covered, expected in zip(axes[3:6], maps, strict=True):
        np.testing.assert_array_equal(shown(covered, 1), expected)
        assert covered.get_images()[1].get_clim() == (0.25, 4)
        opacities.append(np.asarray(covered.get_images()[1].get_alpha()))
    expected = np.broadcast_to(np.array([0.375, 0, 0.75])[:, None, None], (3, 2, 2))
    np.testing.assert_allclose(opacities, expected, atol=1e-6)
