from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes
from numpy.typing import NDArray

from training.figures.maps import draw_kernel, draw_people, draw_stages, received_attention, strongest_channels

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
    figure = draw_stages(PICTURE, {"res4": maps, "res5": maps[:2]})
    picture, mean, _, strongest, *_ = figure.get_axes()
    np.testing.assert_array_equal(shown(picture), PICTURE)
    assert mean.get_title() == "res4\n6 × 4 × 2"
    np.testing.assert_allclose(shown(mean), maps.mean(axis=0))
    first = int(maps.mean(axis=(1, 2)).argmax())
    np.testing.assert_allclose(shown(strongest), maps[first])
    assert strongest.get_xlabel() == f"channel {first}"


def test_a_kernel_is_its_row_in_the_shape_of_the_map() -> None:
    weights = attention(8)
    axes = draw_kernel(PICTURE, weights, (4, 2), position=5).get_axes()
    np.testing.assert_array_equal(shown(axes[0]), PICTURE)
    np.testing.assert_allclose(shown(axes[1]), 8 * weights, rtol=1e-6)
    np.testing.assert_allclose(shown(axes[2]), 8 * weights[5].reshape(4, 2), rtol=1e-6)
    box = axes[2].patches[0].get_bbox()  # type: ignore[attr-defined]
    assert (box.x0, box.y0) == (0.5, 1.5)  # position 5 is row 2, column 1


def test_attention_received_is_a_mean_over_those_who_attend() -> None:
    weights = attention(6)
    expected = [6 * np.mean([weights[j][i] for j in range(6)]) for i in range(6)]
    np.testing.assert_allclose(received_attention(weights, (3, 2)).ravel(), expected, rtol=1e-6)
    np.testing.assert_allclose(received_attention(np.full((6, 6), 1 / 6, np.float32), (2, 3)), 1, rtol=1e-6)


def test_people_share_one_scale() -> None:
    maps = [np.full((2, 2), value, np.float32) for value in (0.5, 2.0)]
    axes = draw_people([PICTURE, PICTURE], maps).get_axes()
    np.testing.assert_array_equal(shown(axes[0]), PICTURE)
    for covered, expected in zip(axes[2:4], maps, strict=True):
        np.testing.assert_array_equal(shown(covered, 1), expected)
        assert covered.get_images()[1].get_clim() == (0, 2)
