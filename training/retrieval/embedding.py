"""Pictures -> unit embeddings, with the decoding ahead of the network."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import DataError, Sample
from training.data.images import read_crop

Embeddings = NDArray[np.float32]
BATCHES_AHEAD = 2


class Model(Protocol):
    """Anything that embeds crops uint8 [N, height, width, 3] RGB as float32 [N, D]."""

    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    def embed(self, crops: NDArray[np.uint8]) -> Embeddings: ...


def embed_samples(
    model: Model,
    samples: Sequence[Sample],
    batch: int = 16,
    flip: bool = False,
    advance: Callable[[int], None] | None = None,
) -> Embeddings:
    """Unit embeddings [N, D] in the order of `samples`; `advance` hears the size of every finished batch.

    Raises:
        DataError: a picture cannot be read, or its embedding is zero or not finite.
    """
    embeddings, done = np.empty((0, 0), np.float32), 0
    for crops in _decoded(samples, model.height, model.width, batch):
        found = _unit(model.embed(crops))
        if flip:
            found = _unit(found + _unit(model.embed(np.ascontiguousarray(crops[:, :, ::-1]))))
        bad = np.flatnonzero(~np.isfinite(found).all(axis=1))
        if bad.size:
            raise DataError(f"{samples[done + bad[0]].name}: its embedding is zero or not finite")
        if not done:
            embeddings = np.empty((len(samples), found.shape[1]), np.float32)
        embeddings[done : done + len(found)] = found
        done += len(found)
        if advance:
            advance(len(found))
    return embeddings


def _unit(embeddings: Embeddings) -> Embeddings:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True), np.float32)


def _decoded(samples: Sequence[Sample], height: int, width: int, batch: int) -> Iterator[NDArray[np.uint8]]:
    """Batches of crops uint8 [n, height, width, 3], decoded in threads while the model works on earlier ones."""

    def decode(sample: Sample) -> NDArray[np.uint8]:
        return read_crop(sample, height, width)

    ahead: deque[Iterator[NDArray[np.uint8]]] = deque()
    with ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as pool:
        for start in range(0, len(samples), batch):
            ahead.append(pool.map(decode, samples[start : start + batch]))
            if len(ahead) > BATCHES_AHEAD:
                yield np.stack(list(ahead.popleft()))
        while ahead:
            yield np.stack(list(ahead.popleft()))
