"""A small drawn data set in Market-1501 layout, for tests, demonstrations and the `smoke` preset.

    python -m training.data.synthetic FOLDER [--train-identities 24 --test-identities 12 ...]

Persons keep their clothes and change pose, direction, camera, light and framing. Every crop is drawn from
a random generator seeded with (seed, identity, camera, shot): it looks the same wherever it is drawn and
however many others are drawn with it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import pi
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from training.data.drawing.figure import draw_figure
from training.data.drawing.person import Person, Pose, random_person
from training.data.drawing.scene import Scene, draw_scene

WIDTH, HEIGHT = 64, 128
MAX_CAMERAS = 9  # one digit in a Market-1501 name
DISTRACTOR_SHARE, JUNK_SHARE = 0.1, 0.08  # of the gallery's own crops
STRANGERS = 100_000  # identity numbers from here on belong to passers-by who are in nobody's set
EXAMPLE_SEED, EXAMPLE_IDENTITIES, EXAMPLE_CAMERAS = 6, 8, 3


class Crop(NamedTuple):
    """One file of the set: where it goes and what seeds its drawing."""

    folder: str
    name: str
    identity: int  # seed of the looks; differs from the identity in the name for distractors and junk
    camera: int
    shot: int
    junk: bool = False


@dataclass(frozen=True)
class Frame:
    """Where a figure stands in its crop, in pixels."""

    feet: tuple[float, float]
    height: float


def draw_market1501(
    folder: Path,
    train_identities: int = 24,
    test_identities: int = 12,
    cameras: int = 3,
    shots: int = 3,
    seed: int = 0,
    multi_query: bool = False,
) -> None:
    """Write `bounding_box_train`, `bounding_box_test` and `query` with JPEG crops of 64x128 into `folder`.

    Every identity has `shots` crops in each camera. The first one of a test identity is its query, the
    others lie in the gallery, together with some distractors (0000) and badly cut crops (-1). With
    `multi_query` all crops of the test identities also lie in `gt_bbox`.

    Raises ValueError for numbers of which no re-identification set can be made.
    """
    if not 2 <= cameras <= MAX_CAMERAS:
        raise ValueError(f"cameras must be 2 to {MAX_CAMERAS}, not {cameras}: matches come from other cameras")
    if shots < 2:
        raise ValueError(f"shots must be at least 2, not {shots}: one is the query, the others the gallery")
    if train_identities < 1 or test_identities < 1:
        raise ValueError("there must be at least one train and one test identity")
    crops = [
        *_train_crops(train_identities, cameras, shots),
        *_test_crops(train_identities, test_identities, cameras, shots),
        *_noise_crops(test_identities * cameras * (shots - 1), cameras),
    ]
    if multi_query:
        crops += _hand_drawn_crops(train_identities, test_identities, cameras, shots)
    _write(folder, crops, seed)


def draw_examples(folder: Path) -> None:
    """Write the README's example crops into `folder`: 8 identities seen by 3 cameras, about 60 kB together."""
    crops = [
        Crop("", f"{identity:04d}_c{camera}s1_{identity:06d}_01.jpg", identity, camera, 1)
        for identity in range(1, EXAMPLE_IDENTITIES + 1)
        for camera in range(1, EXAMPLE_CAMERAS + 1)
    ]
    _write(folder, crops, EXAMPLE_SEED)


def draw_crop(seed: int, crop: Crop, scene: Scene) -> Image.Image:
    """Draw one crop: RGB, 64x128."""
    random = default_rng([seed, crop.identity, crop.camera, crop.shot])
    person = random_person(default_rng([seed, crop.identity]))
    picture = scene.backdrop(random, (WIDTH, HEIGHT))
    frame = _junk_frame(random) if crop.junk else _frame(random)
    picture = _stand(picture, person, _pose(random, crop.camera), frame, scene.light)
    if random.random() < 0.1:
        picture = _pass_by(picture, random, seed, scene.light)
    elif random.random() < 0.12:
        picture = scene.occlude(random, picture)
    return scene.expose(random, picture)


def _train_crops(identities: int, cameras: int, shots: int) -> Iterator[Crop]:
    for identity, camera, shot in _grid(range(1, identities + 1), cameras, shots):
        yield Crop("bounding_box_train", _name(identity, camera, shot), identity, camera, shot)


def _test_crops(first: int, identities: int, cameras: int, shots: int) -> Iterator[Crop]:
    for identity, camera, shot in _grid(range(first + 1, first + identities + 1), cameras, shots):
        if shot == 1:
            # Market's queries were cut by hand and end in 00.
            yield Crop("query", _name(identity, camera, shot, box=0), identity, camera, shot)
        else:
            yield Crop("bounding_box_test", _name(identity, camera, shot), identity, camera, shot)


def _hand_drawn_crops(first: int, identities: int, cameras: int, shots: int) -> Iterator[Crop]:
    for identity, camera, shot in _grid(range(first + 1, first + identities + 1), cameras, shots):
        yield Crop("gt_bbox", _name(identity, camera, shot, box=0), identity, camera, shot)


def _noise_crops(gallery: int, cameras: int) -> Iterator[Crop]:
    """Distractors, whole figures of nobody in the set, and junk, figures that the detector cut badly."""
    for n in range(max(3, round(gallery * DISTRACTOR_SHARE))):
        camera, identity = n % cameras + 1, STRANGERS + n
        yield Crop("bounding_box_test", f"0000_c{camera}s1_{n:06d}_01.jpg", identity, camera, 1)
    for n in range(max(3, round(gallery * JUNK_SHARE))):
        camera, identity = n % cameras + 1, 2 * STRANGERS + n
        yield Crop("bounding_box_test", f"-1_c{camera}s1_{n:06d}_02.jpg", identity, camera, 1, junk=True)


def _grid(identities: Sequence[int], cameras: int, shots: int) -> Iterator[tuple[int, int, int]]:
    for identity in identities:
        for camera in range(1, cameras + 1):
            for shot in range(1, shots + 1):
                yield identity, camera, shot


def _name(identity: int, camera: int, shot: int, box: int | None = None) -> str:
    """A Market-1501 name: identity, camera and sequence, frame, number of the detection."""
    frame = identity * 100 + 25 * shot
    return f"{identity:04d}_c{camera}s1_{frame:06d}_{shot if box is None else box:02d}.jpg"


def _write(folder: Path, crops: Sequence[Crop], seed: int) -> None:
    scenes: dict[int, Scene] = {}
    for crop in crops:
        if crop.camera not in scenes:
            scenes[crop.camera] = draw_scene(seed, crop.camera)
        path = folder / crop.folder / crop.name
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_crop(seed, crop, scenes[crop.camera]).save(path, quality=90)


def _pose(random: Generator, camera: int) -> Pose:
    """A camera sees its street mostly from one direction; people walk it both ways."""
    main = (camera * 2.4) % (2 * pi)
    view = random.uniform(0, 2 * pi) if random.random() < 0.3 else random.normal(main, 0.5)
    if random.random() < 0.35:
        view += pi
    return Pose(view, random.uniform(0, 2 * pi), random.uniform(0.08, 0.5), random.uniform(0.1, 0.7))


def _frame(random: Generator) -> Frame:
    return Frame((WIDTH / 2 + random.normal(0, 3), random.uniform(119, 128)), random.uniform(104, 118))


def _junk_frame(random: Generator) -> Frame:
    """The detector's failures: far too near, far too small, or beside the person."""
    kind = int(random.integers(3))
    if kind == 0:
        return Frame((WIDTH / 2 + random.normal(0, 12), random.uniform(190, 260)), random.uniform(190, 260))
    if kind == 1:
        return Frame((random.uniform(10, 54), random.uniform(80, 126)), random.uniform(40, 64))
    return Frame((random.choice((-6.0, 70.0)), random.uniform(119, 134)), random.uniform(104, 126))


def _stand(picture: Image.Image, person: Person, pose: Pose, frame: Frame, light: float) -> Image.Image:
    """Put a figure with its shadow into the picture."""
    figure = draw_figure(person, pose, picture.size, frame.feet, frame.height)
    opacity = np.asarray(figure.getchannel("A"), np.float32) / 255
    shadow = _shadow(picture.size, frame, light)
    ground = np.asarray(picture, np.float32) * (1 - 0.5 * shadow[..., None])
    body = np.asarray(figure.convert("RGB"), np.float32) * _relief(figure, light)[..., None]
    mixed = ground * (1 - opacity[..., None]) + body * opacity[..., None]
    return Image.fromarray(np.clip(mixed + 0.5, 0, 255).astype(np.uint8))


def _relief(figure: Image.Image, light: float) -> NDArray[np.float32]:
    """Light on a rounded body: the blurred silhouette is its height, lit from the side `light` in [-1, 1]."""
    silhouette = figure.getchannel("A").filter(ImageFilter.GaussianBlur(3.5))
    height = np.asarray(silhouette, np.float32) / 255
    slope = np.gradient(height, axis=1) * light * 5 - np.gradient(height, axis=0) * 1.2
    return np.asarray(np.clip(0.93 + 0.13 * height - slope * 0.8, 0.55, 1.3), np.float32)


def _shadow(size: tuple[int, int], frame: Frame, light: float) -> NDArray[np.float32]:
    """A soft ellipse under the feet that falls away from the light."""
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    wide, flat = frame.height * 0.2, frame.height * 0.028
    across = (x - frame.feet[0] - light * wide * 0.5) / wide
    down = (y - frame.feet[1] + flat * 0.6) / flat
    return np.asarray(np.exp(-(across**2 + down**2)), np.float32)


def _pass_by(picture: Image.Image, random: Generator, seed: int, light: float) -> Image.Image:
    """Somebody else cuts into the side of the crop."""
    other = random_person(default_rng([seed, 3 * STRANGERS + int(random.integers(STRANGERS))]))
    side = -1.0 if random.random() < 0.5 else 1.0
    feet = (WIDTH / 2 + side * random.uniform(30, 36), random.uniform(126, 134))
    pose = Pose(random.uniform(0, 2 * pi), random.uniform(0, 2 * pi), 0.3, 0.3)
    return _stand(picture, other, pose, Frame(feet, random.uniform(108, 124)), light)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: write a drawn set, or the README's examples."""
    parser = argparse.ArgumentParser(prog="python -m training.data.synthetic", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train-identities", type=int, default=24)
    parser.add_argument("--test-identities", type=int, default=12)
    parser.add_argument("--cameras", type=int, default=3)
    parser.add_argument("--shots", type=int, default=3, help="crops of an identity in each camera (default 3)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--multi-query", action="store_true", help="also draw gt_bbox, for the multi-query protocol")
    parser.add_argument("--examples", action="store_true", help="write the README's example crops instead")
    options = parser.parse_args(arguments)
    if options.examples:
        draw_examples(options.folder)
        return 0
    try:
        draw_market1501(
            options.folder,
            options.train_identities,
            options.test_identities,
            options.cameras,
            options.shots,
            options.seed,
            options.multi_query,
        )
    except ValueError as error:
        print(f"synthetic: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
