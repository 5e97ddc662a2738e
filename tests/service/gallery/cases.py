"""Makes galleries and random crops for the tests, and ranks by plain loops as a reference."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.gallery.gallery import Gallery
from service.gallery.ranking import ImpostorCurve
from service.gallery.records import Filters, Labels, NewCrop

MODEL = "a" * 64
START = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)


def crop_id(number: int) -> str:
    """A crop id that sorts as its number."""
    return str(uuid.UUID(int=number))


def open_gallery(
    folder: Path,
    dim: int = 16,
    model: str = MODEL,
    curve: ImpostorCurve | None = None,
    match_distance: float | None = None,
) -> Gallery:
    return Gallery.open(folder, model, f"model-{model[:1]}", dim, curve, match_distance)


def until(condition: Callable[[], bool]) -> None:
    """Waits for what another thread is about to bring about."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def units(rng: np.random.Generator, count: int, dim: int = 16) -> NDArray[np.float32]:
    """Random unit vectors [count, dim]."""
    vectors = rng.standard_normal((count, dim))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def lattice(rng: np.random.Generator, count: int, dim: int = 16) -> NDArray[np.float32]:
    """Random unit vectors with coordinates ±1/sqrt(dim): float32 measures them exactly, ties abound."""
    return np.asarray(rng.choice([-1, 1], (count, dim)) / np.sqrt(dim), np.float32)


def new_crop(number: int, embedding: NDArray[np.float32] | None, labels: Labels | None = None) -> NewCrop:
    return NewCrop(crop_id(number), embedding, b"jpeg %d" % number, labels or Labels())


def random_labels(rng: np.random.Generator, identities: int) -> Labels:
    """Any label may be missing."""
    return Labels(
        identity=None if rng.random() < 0.2 else f"p{rng.integers(identities)}",
        camera=None if rng.random() < 0.2 else f"c{rng.integers(4)}",
        captured_at=None if rng.random() < 0.2 else START + timedelta(seconds=int(rng.integers(100))),
    )


def random_filters(rng: np.random.Generator, identities: int) -> Filters:
    """Mostly one or two filters, sometimes about names that nobody has."""

    def some(prefix: str, count: int, chance: float) -> frozenset[str]:
        if rng.random() > chance:
            return frozenset()
        return frozenset(f"{prefix}{n}" for n in rng.integers(count + 1, size=2))

    since, until = sorted(int(second) for second in rng.integers(-10, 110, size=2))
    return Filters(
        cameras=some("c", 4, 0.25),
        exclude_cameras=some("c", 4, 0.25),
        identities=some("p", identities, 0.15),
        since=START + timedelta(seconds=since) if rng.random() < 0.2 else None,
        until=START + timedelta(seconds=until) if rng.random() < 0.2 else None,
        unidentified=bool(rng.random() < 0.1),
    )


def passes(labels: Labels, filters: Filters) -> bool:
    """The filters' meaning, written down once more."""
    time = labels.captured_at
    return not (
        (filters.cameras and labels.camera not in filters.cameras)
        or (labels.camera is not None and labels.camera in filters.exclude_cameras)
        or (filters.identities and labels.identity not in filters.identities)
        or (filters.unidentified and labels.identity is not None)
        or (filters.since is not None and (time is None or time < filters.since))
        or (filters.until is not None and (time is None or time >= filters.until))
    )


@dataclass(frozen=True)
class Ranked:
    """One identity of the reference ranking: (distance, crop_id) of its crops, nearest first."""

    identity: str | None
    crops: list[tuple[float, str]]


def rank_by_loops(query: NDArray[np.float32], crops: Sequence[NewCrop], filters: Filters) -> list[Ranked]:
    """Every candidate, nearest first, in float64."""
    probe = np.float64(np.float16(query))
    candidates: dict[tuple[str, str], Ranked] = {}
    for crop in crops:
        if not passes(crop.labels, filters):
            continue
        assert crop.embedding is not None
        distance = float(np.linalg.norm(probe - np.float64(np.float16(crop.embedding)))) / 2
        name = crop.labels.identity
        key = ("crop", crop.crop_id) if name is None else ("identity", name)
        candidates.setdefault(key, Ranked(name, [])).crops.append((distance, crop.crop_id))
    for candidate in candidates.values():
        candidate.crops.sort()
    return sorted(candidates.values(), key=lambda candidate: candidate.crops[0])


def flip(path: Path, place: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(place * (len(data) - 1))] ^= 0x10
    path.write_bytes(data)


def cut(path: Path, share: float) -> None:
    os.truncate(path, int(share * path.stat().st_size))


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def linked(path: Path) -> None:
    path.symlink_to(path.rename(path.parent.parent / path.name))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a pipe": pipe,
    "a link": linked,
    **{f"bit flipped at {place:.2f}": partial(flip, place=place) for place in np.linspace(0, 1, 12).tolist()},
    **{f"cut to {share}": partial(cut, share=share) for share in (0.0, 0.001, 0.3, 0.9, 0.999)},
    "garbage": lambda path: path.write_bytes(np.random.default_rng(0).bytes(50_000)),
    "more at its end": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "more in its middle": lambda path: path.write_bytes(b"x" + path.read_bytes()),
}
