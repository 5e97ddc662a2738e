"""The drawn data set: its layout, that it is always the same, and that it is neither trivial nor hopeless."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from training.data import market1501
from training.data.dataset import DISTRACTOR, JUNK, Dataset, Sample
from training.data.synthetic import draw_examples, draw_market1501, main
from training.retrieval.metrics import RankMetrics, rank_metrics
from training.retrieval.ranking import ranking_of

EXAMPLES = Path(__file__).parents[3] / "examples" / "crops"
MARKET_NAME = re.compile(r"(-1|\d{4})_c\ds1_\d{6}_\d{2}\.jpg")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    draw_market1501(folder, train_identities=3, test_identities=4, cameras=2, shots=3, seed=5)
    return folder


@pytest.fixture(scope="module")
def standard(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("standard")
    draw_market1501(folder, train_identities=2)
    return market1501.read(folder)


def pixels(data: bytes) -> NDArray[np.float32]:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image, np.float32)


def test_layout_is_market1501s(small: Path) -> None:
    names = [path.name for path in small.rglob("*.jpg")]
    assert len(set(names)) == len(names)
    assert all(MARKET_NAME.fullmatch(name) for name in names)
    data = market1501.read(small)
    assert Counter(sample.identity for sample in data.train) == {1: 6, 2: 6, 3: 6}
    assert Counter((sample.identity, sample.camera) for sample in data.query) == {
        (identity, camera): 1 for identity in (4, 5, 6, 7) for camera in (1, 2)
    }
    gallery = Counter(sample.identity for sample in data.gallery)
    assert gallery == {4: 4, 5: 4, 6: 4, 7: 4, DISTRACTOR: 3, JUNK: 3}


def test_every_crop_is_a_small_rgb_jpeg(small: Path) -> None:
    for path in small.rglob("*.jpg"):
        with Image.open(path) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (64, 128))
        assert pixels(path.read_bytes()).std() > 10  # something is drawn


def test_a_crop_is_the_same_in_every_set_of_its_seed(small: Path, tmp_path: Path) -> None:
    draw_market1501(tmp_path, train_identities=4, test_identities=1, cameras=3, shots=3, seed=5)
    for path in (small / "bounding_box_train").iterdir():
        assert (tmp_path / "bounding_box_train" / path.name).read_bytes() == path.read_bytes()


def test_another_seed_is_another_set(small: Path, tmp_path: Path) -> None:
    draw_market1501(tmp_path, train_identities=3, test_identities=4, cameras=2, shots=3, seed=6)
    for path in (small / "bounding_box_train").iterdir():
        assert (tmp_path / "bounding_box_train" / path.name).read_bytes() != path.read_bytes()


def test_cameras_differ_in_what_they_see_and_how(standard: Dataset) -> None:
    borders = {
        camera: np.mean([_border(sample) for sample in standard.query if sample.camera == camera], axis=0)
        for camera in (1, 2, 3)
    }
    for one, other in ((1, 2), (1, 3), (2, 3)):
        assert np.abs(borders[one] - borders[other]).mean() > 8  # grey levels


def _border(sample: Sample) -> NDArray[np.float32]:
    image = pixels(sample.read())
    return np.concatenate([image[:, :6], image[:, -6:]], axis=1)


def test_colour_alone_names_nobody_but_looks_do(standard: Dataset) -> None:
    mean_colour = _retrieve(standard, _mean_colour)
    looks = _retrieve(standard, _stripes)
    chance = 1 / 12
    assert mean_colour.rank(1) < 2 * chance
    assert 3 * chance < looks.rank(1) < 0.8


def _mean_colour(image: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(image.mean((0, 1)), np.float32)


def _stripes(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Colours of eight bands of the body, freed of the camera's cast."""
    balanced = (image - image.mean((0, 1))) / image.std()
    return np.asarray(balanced[:, 20:44].reshape(8, 16, 24, 3).mean((1, 2)).ravel(), np.float32)


def _retrieve(data: Dataset, feature: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> RankMetrics:
    ranking = ranking_of(data, "test")
    query, gallery = (
        np.stack([feature(np.float32(1 / 255) * pixels(sample.read()) - np.float32(0.5)) for sample in part])
        for part in (ranking.query, ranking.gallery)
    )
    return rank_metrics(query, gallery, ranking.labels())


def test_the_examples_are_what_the_command_draws(tmp_path: Path) -> None:
    assert main([str(tmp_path), "--examples"]) == 0
    drawn = sorted(path.name for path in tmp_path.iterdir())
    assert drawn == sorted(path.name for path in EXAMPLES.glob("*.jpg"))
    assert len(drawn) == 24
    assert sum(path.stat().st_size for path in EXAMPLES.glob("*.jpg")) < 200_000
    for name in drawn:
        # Another JPEG or maths library may round a pixel otherwise; it draws no other picture.
        difference = pixels((tmp_path / name).read_bytes()) - pixels((EXAMPLES / name).read_bytes())
        assert np.abs(difference).mean() < 2


def test_the_command_draws_the_set_it_is_asked_for(tmp_path: Path) -> None:
    identities = ["--train-identities", "2", "--test-identities", "1"]
    assert main([str(tmp_path), *identities, "--cameras", "2", "--shots", "2", "--seed", "3"]) == 0
    data = market1501.read(tmp_path)
    assert (len(data.train), len(data.query)) == (8, 2)


@pytest.mark.parametrize(
    ("option", "value", "word"),
    [("--cameras", "1", "cameras"), ("--shots", "1", "shots"), ("--cameras", "10", "cameras")],
)
def test_a_set_that_cannot_be_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str, word: str
) -> None:
    assert main([str(tmp_path / "new"), option, value]) == 2
    assert word in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_examples_can_be_drawn_into_a_new_folder(tmp_path: Path) -> None:
    draw_examples(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b" / "0001_c1s1_000001_01.jpg").is_file()


def test_hand_drawn_crops_of_the_queries_are_drawn_where_asked(tmp_path: Path) -> None:
    identities = ["--train-identities", "2", "--test-identities", "2"]
    assert main([str(tmp_path), *identities, "--cameras", "2", "--shots", "2", "--multi-query"]) == 0
    data = market1501.read(tmp_path)
    asked = Counter((sample.identity, sample.camera) for sample in data.multi_query)
    assert asked == {(identity, camera): 2 for identity in (3, 4) for camera in (1, 2)}
