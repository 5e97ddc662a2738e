"""How models do on cameras that they never saw, without another data set.

    python -m benchmarks.unseen_cameras FILE … --data market1501

Eight times, 300 people of the test part are drawn, each with one picture of one camera and one of another, as
two-camera data sets have them, and both sides are seen through a drawn camera of their own: its light, its contrast,
its sharpness, its compression, and the boxes that its detector cuts. That stands in for cameras that were not at hand,
and does not replace measuring on them.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

from training.data.dataset import DataError, Dataset, Sample
from training.data.images import upright_rgb
from training.data.reading import read
from training.retrieval.embedding import Model
from training.retrieval.onnx_model import INPUT_LAYOUTS, ModelError, OnnxModel

PEOPLE, DRAWS, BATCH = 300, 8, 16
Crops = NDArray[np.uint8]
Seen = dict[int, dict[int, list[Sample]]]  # by person and camera


@dataclass(frozen=True)
class Camera:
    """How it renders a crop of 128 x 64 pixels; boxes are in shares of its height and width."""

    gain: NDArray[np.float64]  # of red, green and blue
    gamma: float
    contrast: float
    colour: float
    width: int  # of a crop, in pixels
    blur: float  # of 128 x 64, in pixels
    box: tuple[float, float]  # width and height over the right ones
    shift: tuple[float, float]
    quality: int  # of its JPEG

    @classmethod
    def drawn(cls, random: np.random.Generator) -> Camera:
        return cls(
            gain=random.uniform(0.75, 1.3, 3) * random.uniform(0.6, 1.25),
            gamma=random.uniform(0.7, 1.5),
            contrast=random.uniform(0.5, 1.3),
            colour=random.uniform(0.3, 1.4),
            width=int(random.choice([24, 32, 48, 64])),
            blur=random.uniform(0, 1.2),
            box=(random.uniform(0.8, 1.2), random.uniform(0.85, 1.15)),
            shift=(random.uniform(-0.06, 0.06), random.uniform(-0.06, 0.06)),
            quality=int(random.integers(25, 90)),
        )

    def sees(self, picture: Image.Image, random: np.random.Generator) -> Image.Image:
        """A picture as this camera would have it; box and light vary a little from one to the next."""
        box = [side * random.uniform(0.94, 1.06) for side in self.box]
        share = self.width / 64
        small = _cut(picture, box, self.shift).resize((self.width, 2 * self.width), Image.Resampling.BILINEAR)
        blurred = np.asarray(small.filter(ImageFilter.GaussianBlur(self.blur * share)), np.float32) / 255
        lit = (blurred**self.gamma * self.gain * random.uniform(0.9, 1.1)).clip(0, 1)
        changed = ImageEnhance.Contrast(Image.fromarray((lit * 255).astype(np.uint8))).enhance(self.contrast)
        file = io.BytesIO()
        ImageEnhance.Color(changed).enhance(self.colour).save(file, "JPEG", quality=self.quality)
        return Image.open(file).convert("RGB")


def _cut(picture: Image.Image, box: Sequence[float], shift: Sequence[float]) -> Image.Image:
    """A box of `box` times the picture's sides, `shift` sides away from its middle; outside is the edge again."""
    width, height = picture.size
    padded = np.pad(np.asarray(picture), ((height // 4, height // 4), (width // 4, width // 4), (0, 0)), mode="edge")
    left = width * (0.5 - 0.5 * box[0] + shift[0]) + width // 4
    top = height * (0.5 - 0.5 * box[1] + shift[1]) + height // 4
    corners = (int(left), int(top), int(left + width * box[0]), int(top + height * box[1]))
    return Image.fromarray(padded).crop(corners)


def people_of(data: Dataset) -> Seen:
    """The test part's people whom two cameras saw.

    Raises:
        DataError: there are not enough.
    """
    seen: Seen = {}
    for sample in (*data.query, *data.gallery):
        if sample.identity > 0:
            seen.setdefault(sample.identity, {}).setdefault(sample.camera, []).append(sample)
    seen = {person: cameras for person, cameras in seen.items() if len(cameras) > 1}
    if len(seen) < PEOPLE:
        raise DataError(f"{data.name} has {len(seen)} test people in two cameras: {PEOPLE} are needed")
    return seen


def draw(seen: Seen, seed: int, unseen: bool, size: tuple[int, int]) -> tuple[Crops, Crops]:
    """Crops uint8 [PEOPLE, height, width, 3] of the two sides, in the same order of people."""
    random = np.random.default_rng(seed)
    people = random.choice(sorted(seen), PEOPLE, replace=False)
    cameras = (Camera.drawn(random), Camera.drawn(random))
    sides: tuple[list[Crops], list[Crops]] = ([], [])
    for person in people:
        places = random.choice(sorted(seen[person]), 2, replace=False)
        for side, place, camera in zip(sides, places, cameras, strict=True):
            samples = seen[person][place]
            sample = samples[random.integers(len(samples))]
            picture = upright_rgb(Image.open(io.BytesIO(sample.read())))
            shown = camera.sees(picture, random) if unseen else picture
            side.append(np.asarray(shown.resize(size[::-1], Image.Resampling.BILINEAR)))
    return np.stack(sides[0]), np.stack(sides[1])


def figures(model: Model, first: Crops, second: Crops) -> tuple[float, float]:
    """Rank-1 and mAP of `first` against `second`, one picture a person each, in percent."""
    similarity = embed(model, first) @ embed(model, second).T
    before = (similarity > np.diag(similarity)[:, None]).sum(axis=1)  # strangers nearer than the person
    return 100 * float((before == 0).mean()), 100 * float((1 / (1 + before)).mean())


def embed(model: Model, crops: Crops) -> NDArray[np.float32]:
    """Unit embeddings [N, D]."""
    found = np.concatenate([model.embed(crops[start : start + BATCH]) for start in range(0, len(crops), BATCH)])
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


def opened(path: Path, layout: str | None) -> Model:
    """An ONNX file, or OpenVINO's .xml.

    Raises:
        ModelError, ImportError: it cannot be used so, or OpenVINO is not installed here.
    """
    if path.suffix != ".xml":
        return OnnxModel(path, layout)
    from benchmarks.peers.openvino_embeddings import ZOO, OpenVinoModel

    return OpenVinoModel(path, layout or ZOO)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 measured, 2 not possible."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path, metavar="FILE", help="an ONNX file, or OpenVINO's .xml")
    parser.add_argument("--data", type=Path, required=True, metavar="PATH")
    parser.add_argument("--input-layout", choices=INPUT_LAYOUTS, help="of files of another program")
    options = parser.parse_args(argv)
    try:
        seen = people_of(read(options.data, None))
        for path in options.models:
            model = opened(path, options.input_layout)
            for unseen, name in ((False, "as they are"), (True, "unseen cameras")):
                drawn = (draw(seen, seed, unseen, (model.height, model.width)) for seed in range(DRAWS))
                ranks, precisions = zip(*(figures(model, *sides) for sides in drawn), strict=True)
                print(
                    f"{path.name}, {name}: rank-1 {np.mean(ranks):.1f} ({min(ranks):.1f} to {max(ranks):.1f}), "
                    f"mAP {np.mean(precisions):.1f}",
                    flush=True,
                )
    except (DataError, ModelError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
