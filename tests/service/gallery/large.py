"""Galleries that have a first stage, and how well it finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.gallery.building import IndexKind, Searching
from service.gallery.gallery import Gallery
from service.gallery.records import Filters, Labels, NewCrop, Probe, QueryOptions
from tests.service.gallery.cases import MODEL, crop_id, units, until

DIM = 32
PEOPLE, SHOTS = 300, 6


def people(rng: np.random.Generator, count: int, shots: int) -> NDArray[np.float32]:
    """Shots of people, near each other [count * shots, DIM]."""
    vectors = np.repeat(units(rng, count, DIM), shots, axis=0) + 0.4 * units(rng, count * shots, DIM)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def enrolled(vectors: NDArray[np.float32], first: int = 0) -> list[NewCrop]:
    return [
        NewCrop(crop_id(first + n), v, None, Labels(f"p{(first + n) // SHOTS}", f"c{(first + n) % 5}"))
        for n, v in enumerate(vectors)
    ]


def opened(folder: Path, kind: IndexKind = "ivf") -> Gallery:
    return Gallery.open(folder, MODEL, "model-a", DIM, None, 0.3, Searching(kind))


def staged(gallery: Gallery) -> None:
    until(lambda: gallery._index.staged)


def agreement(gallery: Gallery, probes: NDArray[np.float32], filters: Filters) -> float:
    """The share of the ten nearest identities of exact answers that likely crops have, too."""
    shares = []
    for probe in probes:
        options = QueryOptions(10, 2, filters)
        near, all_of_them = gallery.query_all(
            [Probe(probe[None], options), Probe(probe[None], QueryOptions(10, 2, filters, exact=True))]
        )
        assert not isinstance(near, Exception)
        assert not isinstance(all_of_them, Exception)
        assert (near.exact, all_of_them.exact) == (False, True)
        assert near.searched == all_of_them.searched
        expected = {match.identity: match for match in all_of_them.matches}
        same = [match for match in near.matches if match.identity in expected]
        for match in same:  # with the same crops, at the same distances
            assert match.crops == expected[match.identity].crops
        shares.append(len(same) / len(expected))
    return float(np.mean(shares))
