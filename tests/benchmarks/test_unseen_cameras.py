from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from benchmarks import unseen_cameras
from benchmarks.unseen_cameras import Camera, draw, figures, people_of
from training.data.dataset import DataError, Dataset, Sample
from training.retrieval.onnx_model import OnnxModel


def picture(colour: tuple[int, int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 128), colour).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Four people of a colour each, in two cameras; a fifth in one, and a distractor."""
    monkeypatch.setattr(unseen_cameras, "PEOPLE", 4)
    colours = {1: (200, 40, 40), 2: (40, 200, 40), 3: (40, 40, 200), 4: (120, 120, 120), 5: (9, 9, 9), 0: (0, 0, 0)}
    samples = [
        Sample(f"{person}-{camera}", person, camera, 1, lambda person=person: picture(colours[person]))  # type: ignore[misc]
        for person in colours
        for camera in (1, 2)
        if (person, camera) != (5, 2)
    ]
    return Dataset("few", (), tuple(samples[::2]), tuple(samples[1::2]))


def test_people_whom_two_cameras_saw_are_drawn(few: Dataset) -> None:
    seen = people_of(few)
    assert sorted(seen) == [1, 2, 3, 4]
    first, second = draw(seen, 0, unseen=False, size=(32, 16))
    assert first.shape == second.shape == (4, 32, 16, 3)
    assert np.array_equal(first, second)  # without a camera between, a person has one colour here
    assert len(np.unique(first[:, 0, 0], axis=0)) == 4


def test_a_seed_draws_the_same_and_the_two_cameras_differ(few: Dataset) -> None:
    seen = people_of(few)
    first, second = draw(seen, 3, unseen=True, size=(32, 16))
    assert not np.array_equal(first, second)
    assert all(np.array_equal(*pair) for pair in zip(draw(seen, 3, True, (32, 16)), (first, second), strict=True))


def test_a_camera_has_its_resolution() -> None:
    random = np.random.default_rng(0)
    camera = Camera.drawn(random)
    seen = camera.sees(Image.new("RGB", (64, 128), (100, 150, 200)), random)
    assert seen.size == (camera.width, 2 * camera.width)


def test_figures_count_the_strangers_who_are_nearer() -> None:
    """Directions in the plane: the first two find themselves, the third has one stranger before it."""

    class Plane(OnnxModel):
        def __init__(self) -> None:
            pass

        def embed(self, crops: unseen_cameras.Crops) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
            angles = np.deg2rad(crops[:, 0, 0, 0].astype(np.float32))
            return np.stack([np.cos(angles), np.sin(angles)], axis=1)

    def crops(*angles: int) -> unseen_cameras.Crops:
        return np.array(angles, np.uint8).reshape(-1, 1, 1, 1)

    rank1, mean = figures(Plane(), crops(0, 90, 180), crops(5, 100, 40))
    assert rank1 == pytest.approx(200 / 3)
    assert mean == pytest.approx(100 * (1 + 1 + 1 / 2) / 3)


def test_too_few_people_are_refused(few: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unseen_cameras, "PEOPLE", 5)
    with pytest.raises(DataError, match="few has 4 test people in two cameras: 5 are needed"):
        people_of(few)
