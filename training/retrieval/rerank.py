"""k-reciprocal re-ranking (Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding",
CVPR 2017), without an N x N matrix.

Every picture, query or gallery, is described by its k-reciprocal neighbours, weighted by their nearness (their
equations 1-7); the description is averaged over its k2 nearest pictures (section 3.4); and the distance is mixed
of the Jaccard distance between descriptions and the original one (equations 8-12). As in the authors' code, the
original distance is the squared Euclidean one over its largest value from the same picture, and half of k1 is
rounded half to even. A picture has about a hundred neighbours, so that all descriptions fit in some tens of megabytes;
original distances are computed a few rows at a time, and for the queries a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.retrieval.metrics import CHUNK_BYTES, Distances, lengths_of

Pictures = NDArray[np.float32]  # unit embeddings [N, D]
Indices = NDArray[np.int64]
NOBODY = -1
SMALLEST = np.finfo(np.float32).tiny


@dataclass(frozen=True)
class Reciprocal:
    """The method's three numbers, with the paper's values.

    Raises:
        ValueError: one is outside its range.
    """

    k1: int = 20  # nearest pictures among which reciprocal ones are looked for
    k2: int = 6  # nearest pictures over which descriptions are averaged
    original: float = 0.3  # lambda: the share of the original distance in the final one

    def __post_init__(self) -> None:
        if self.k1 < 1 or self.k2 < 1 or not 0 <= self.original <= 1:
            raise ValueError(f"re-ranking needs k1 and k2 of 1 at least and lambda in [0, 1], not {self}")


PAPER = Reciprocal()


@dataclass(frozen=True)
class _Sparse:
    """Rows of non-zeros: those of row i are `columns` and `values` from `starts[i]` to `starts[i + 1]`."""

    starts: Indices
    columns: Indices
    values: NDArray[np.float64]

    @classmethod
    def of(cls, rows: Indices, columns: Indices, values: NDArray[np.float64], count: int) -> _Sparse:
        """From entries with ascending `rows`, each below `count`."""
        return cls(np.searchsorted(rows, np.arange(count + 1)), columns, values)

    def gather(self, rows: Indices) -> tuple[Indices, Indices]:
        """For the entries of `rows`, one row after the other: the place in `rows`, and the place of the entry."""
        lengths = self.starts[rows + 1] - self.starts[rows]
        ends = np.cumsum(lengths)
        shift = np.repeat(self.starts[rows] - ends + lengths, lengths)
        return np.repeat(np.arange(rows.size), lengths), shift + np.arange(shift.size)

    def transposed_from(self, first: int, count: int) -> _Sparse:
        """The transpose [count, rows - first] of the rows from `first` on."""
        rows = np.repeat(np.arange(self.starts.size - 1 - first), np.diff(self.starts[first:]))
        columns, values = self.columns[self.starts[first] :], self.values[self.starts[first] :]
        order = np.argsort(columns, kind="stable")
        return _Sparse.of(columns[order], rows[order], values[order], count)


def reranked_distances(
    query: NDArray[np.float32],
    gallery: NDArray[np.float32],
    settings: Reciprocal = PAPER,
    advance: Callable[[int], None] | None = None,
) -> Iterator[Distances]:
    """Rows [G] of the final distances, one a query, computed as they are asked for; each is the caller's own.

    Args:
        query: embeddings [Q, D] of any length but zero.
        gallery: embeddings [G, D].
        advance: hears how many steps were done; there are one a picture and one a query, 2 Q + G together.

    Raises:
        ValueError: not [Q, D] and [G, D], or an embedding is zero or not finite.
    """
    query, gallery = np.asarray(query, np.float32), np.asarray(gallery, np.float32)
    if query.ndim != 2 or gallery.ndim != 2 or query.shape[1] != gallery.shape[1]:
        raise ValueError(f"query {query.shape} and gallery {gallery.shape} must be [Q, D] and [G, D]")
    lengths = np.concatenate([lengths_of("query", query), lengths_of("gallery", gallery)])
    pictures = np.concatenate([query, gallery])
    pictures /= lengths[:, None]
    return _rows(pictures, len(query), settings, advance or (lambda _: None))


def _rows(
    pictures: Pictures, queries: int, settings: Reciprocal, advance: Callable[[int], None]
) -> Iterator[Distances]:
    near, farthest = _nearest(pictures, max(settings.k1 + 1, settings.k2), advance)
    described = _describe(pictures, farthest, *_neighbourhoods(near, settings.k1))
    if settings.k2 > 1:
        described = _averaged(described, near[:, : settings.k2])
    described_by = described.transposed_from(queries, len(pictures))
    originals = _squared_distances(pictures[:queries], pictures[queries:])
    for index, original in enumerate(originals):
        original /= farthest[index]
        jaccard = _jaccard(described, described_by, index, original.size)
        advance(1)
        yield (settings.original * original + (1 - settings.original) * jaccard).astype(np.float32)


def _squared_distances(some: Pictures, others: Pictures) -> Iterator[NDArray[np.float32]]:
    """Rows of squared Euclidean distances between unit vectors; one may be written to, later ones overwrite it."""
    chunk = max(1, CHUNK_BYTES // (4 * max(1, len(others))))
    products = np.empty((min(chunk, len(some)), len(others)), np.float32)
    for start in range(0, len(some), chunk):
        part = some[start : start + chunk]
        rows = np.matmul(part, others.T, out=products[: len(part)])
        rows *= -2
        rows += 2
        yield from np.maximum(rows, 0, out=rows)


def _nearest(pictures: Pictures, k: int, advance: Callable[[int], None]) -> tuple[Indices, NDArray[np.float32]]:
    """The k nearest of each picture (all of them where there are fewer), nearest first, so most often itself [N, k];
    and its squared distance to the farthest [N]. Equal distances are ordered by index."""
    k = min(k, len(pictures))
    near = np.empty((len(pictures), k), np.int64)
    farthest = np.empty(len(pictures), np.float32)
    for index, row in enumerate(_squared_distances(pictures, pictures)):
        limit = np.partition(row, k - 1)[k - 1]
        candidates = np.flatnonzero(row <= limit)
        near[index] = candidates[np.argsort(row[candidates], kind="stable")[:k]]
        farthest[index] = row.max()
        advance(1)
    return near, np.maximum(farthest, SMALLEST)  # pictures may all be the same


def _neighbourhoods(near: Indices, k1: int) -> tuple[Indices, Indices]:
    """R*(p, k1) of every picture p (their equation 3): entries (p, member), ascending."""
    wide = _reciprocal(near[:, : k1 + 1])
    narrow = _reciprocal(near[:, : int(np.around(k1 / 2)) + 1])
    count, codes = len(near), []
    for part in _parts(count, wide.shape[1] ** 2 * narrow.shape[1]):
        own = wide[part]  # [n, a]
        cores = narrow[own]  # [n, a, b], of nobody where `own` is
        there = (cores != NOBODY) & (own != NOBODY)[:, :, None]
        shared = there & (cores[..., None] == own[:, None, None, :]).any(axis=3)
        taken = shared.sum(axis=2) > 2 / 3 * there.sum(axis=2)
        members = np.where(there & taken[:, :, None], cores, NOBODY).reshape(len(own), -1)
        members = np.concatenate([own, members], axis=1)
        rows = np.arange(part.start, part.start + len(own))[:, None]
        codes.append(np.unique((rows * count + members)[members != NOBODY]))
    rows, members = np.divmod(np.concatenate(codes), count)
    return rows, members


def _reciprocal(near: Indices) -> Indices:
    """R(p, k) (their equation 2) of the k nearest [N, k]: those that have p among their own, else NOBODY."""
    kept = np.empty_like(near)
    for part in _parts(len(near), 8 * near.shape[1] ** 2):
        own = near[part]
        places = np.arange(part.start, part.start + len(own))
        kept[part] = np.where((near[own] == places[:, None, None]).any(axis=2), own, NOBODY)
    return kept


def _describe(pictures: Pictures, farthest: NDArray[np.float32], rows: Indices, members: Indices) -> _Sparse:
    """exp(-distance) to the members of each neighbourhood (their equation 7), of sum 1."""
    weights = np.empty(rows.size)
    for part in _parts(rows.size, 8 * pictures.shape[1]):
        cosines = np.einsum("nd,nd->n", pictures[rows[part]], pictures[members[part]])
        weights[part] = np.exp(-np.maximum(2 - 2 * cosines, 0) / farthest[rows[part]])
    weights /= np.bincount(rows, weights, len(pictures))[rows]
    return _Sparse.of(rows, members, weights, len(pictures))


def _averaged(described: _Sparse, near: Indices) -> _Sparse:
    """The mean description of the pictures in each row of `near` [N, k2] (local query expansion)."""
    count, k2 = near.shape
    codes, values = [], []
    for part in _parts(count, 8 * k2 * (1 + described.columns.size // count)):
        places, entries = described.gather(near[part].ravel())
        found, inverse = np.unique(
            (part.start + places // k2) * count + described.columns[entries], return_inverse=True
        )
        codes.append(found)
        values.append(np.bincount(inverse, described.values[entries]) / k2)
    rows, columns = np.divmod(np.concatenate(codes), count)
    return _Sparse.of(rows, columns, np.concatenate(values), count)


def _jaccard(described: _Sparse, described_by: _Sparse, index: int, gallery: int) -> NDArray[np.float64]:
    """Jaccard distances [G] of picture `index` (their equation 10); `described_by` is the gallery's transpose."""
    own = slice(described.starts[index], described.starts[index + 1])
    places, entries = described_by.gather(described.columns[own])
    smaller = np.minimum(described.values[own][places], described_by.values[entries])
    shared = np.bincount(described_by.columns[entries], smaller, gallery)
    jaccard: NDArray[np.float64] = 1 - shared / (2 - shared)
    return jaccard


def _parts(count: int, row_bytes: int) -> Iterator[slice]:
    """Slices of 0 ... count whose rows, of so many bytes each, fill a chunk."""
    step = max(1, CHUNK_BYTES // row_bytes)
    return (slice(start, min(start + step, count)) for start in range(0, count, step))
