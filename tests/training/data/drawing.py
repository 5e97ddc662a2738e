"""Small data sets, laid out as the originals are."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from training.data.dataset import Dataset, Sample


def picture(value: int = 0, kind: str = "JPEG", size: tuple[int, int] = (8, 16)) -> bytes:
    """A picture of one grey, 8 wide and 16 high."""
    encoded = io.BytesIO()
    Image.fromarray(np.full((size[1], size[0], 3), value, np.uint8)).save(encoded, kind)
    return encoded.getvalue()


def write_pictures(folder: Path, names: Iterable[str]) -> None:
    """Pictures of the given names; what they show does not matter, but no two are the same."""
    kinds = {".png": "PNG", ".webp": "WEBP"}
    for value, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(value % 256, kinds.get(path.suffix.lower(), "JPEG")))


def samples(*people: tuple[int, int], start: int = 0) -> tuple[Sample, ...]:
    """Samples of (identity, camera), named by their number."""
    return tuple(
        Sample(f"{number:03d}.jpg", identity, camera, 1, bytes)
        for number, (identity, camera) in enumerate(people, start)
    )


def sound() -> Dataset:
    """Two people to learn, two to test with, each in two cameras."""
    return Dataset(
        name="sound",
        train=samples((1, 1), (1, 2), (2, 1), (2, 2)),
        query=samples((3, 1), (4, 1), start=10),
        gallery=samples((3, 1), (3, 2), (4, 2), (0, 1), (-1, 2), start=20),
    )
