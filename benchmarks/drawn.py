"""Embeddings that are drawn: as many as wanted, of people who are alike to themselves."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

CROPS_A_PERSON = 20
COSINE = 0.7  # of two crops of a person; of strangers 0 ± 1 / √D
CHUNK = 1000
QUERY_SEED = 2**32  # queries are other crops of people in the gallery


def draw_crops(numbers: range, dim: int, seed: int = 0) -> NDArray[np.float32]:
    """Unit rows [n, D]: the crops of those numbers, `CROPS_A_PERSON` around a centre each. The same for the same
    range; drawn a range of `CHUNK` at a time everywhere."""
    random = np.random.default_rng((seed, numbers.start))
    people = sorted({number // CROPS_A_PERSON for number in numbers})
    centres = np.stack([np.random.default_rng(person).standard_normal(dim, np.float32) for person in people])
    crops = random.standard_normal((len(numbers), dim), np.float32)
    crops *= (1 - COSINE) ** 0.5
    crops += COSINE**0.5 * centres[np.array([number // CROPS_A_PERSON for number in numbers]) - people[0]]
    crops /= np.linalg.norm(crops, axis=1, keepdims=True)
    return crops


def draw_gallery(crops: int, dim: int) -> Iterator[tuple[range, NDArray[np.float32]]]:
    """Numbers and rows, a chunk at a time."""
    for start in range(0, crops, CHUNK):
        numbers = range(start, min(start + CHUNK, crops))
        yield numbers, draw_crops(numbers, dim)


def draw_queries(count: int, crops: int, dim: int) -> NDArray[np.float32]:
    """Rows [n, D] of as many people of a gallery of `crops`, at even distances; none of them is in it."""
    people = max(crops // CROPS_A_PERSON, 1)
    wanted = [number * people // count * CROPS_A_PERSON for number in range(count)]
    return np.concatenate([draw_crops(range(number, number + 1), dim, QUERY_SEED) for number in wanted])
