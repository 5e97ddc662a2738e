from __future__ import annotations

import numpy as np
import pytest

from tests.training.figures.reading_back import title
from training.figures.embeddings import Scatter, draw_scatter, perplexity_of, project


def test_a_projection_is_the_same_every_time_and_keeps_neighbours() -> None:
    random = np.random.default_rng(0)
    centres = np.eye(3, 8, dtype=np.float32)
    embeddings = (centres.repeat(6, axis=0) + random.normal(0, 0.01, (18, 8))).astype(np.float32)
    points = project(embeddings)
    assert points.shape == (18, 2)
    np.testing.assert_array_equal(points, project(embeddings))
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    np.testing.assert_array_equal(distances.argmin(axis=1) // 6, np.arange(18) // 6)


@pytest.mark.parametrize(("count", "expected"), [(13, 4), (91, 30), (300, 30)])
def test_few_points_have_a_smaller_perplexity(count: int, expected: float) -> None:
    assert perplexity_of(count) == expected


def test_too_few_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 5"):
        project(np.eye(4, dtype=np.float32))


def test_a_panel_a_loss_and_a_marker_a_person() -> None:
    identities = np.array([4, 4, 9])
    panels = {name: Scatter(np.eye(3, 2, dtype=np.float32), identities) for name in ("cross-entropy", "both")}
    figure = draw_scatter(panels, "two people")
    assert [axes.get_title() for axes in figure.get_axes()] == ["cross-entropy", "both"]
    np.testing.assert_array_equal(figure.get_axes()[0].collections[0].get_offsets(), np.eye(3, 2)[:2])
    assert title(figure) == "two people"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["4", "9"]
