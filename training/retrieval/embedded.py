"""The embeddings of queries and gallery: kept in files, and averaged to multi-queries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from training.data.arrays import read_array
from training.data.dataset import DataError, Sample
from training.loop.files import make_folder, write_whole
from training.retrieval.embedding import Embeddings


@dataclass(frozen=True)
class Embedded:
    """Unit embeddings: query [Q, D], gallery [G, D] and, where they were asked for, multi-query pictures [M, D]."""

    query: Embeddings
    gallery: Embeddings
    multi_query: Embeddings | None = None

    def save(self, folder: Path) -> None:
        """Write query.npy, gallery.npy and multi_query.npy; none stays behind that is of another model.

        Raises:
            NotWritten: the disk is full, or the folder cannot be written; the message names the file.
        """
        make_folder(folder)
        for part, embeddings in (("query", self.query), ("gallery", self.gallery), ("multi_query", self.multi_query)):
            path = folder / f"{part}.npy"
            if embeddings is None:
                path.unlink(missing_ok=True)
            else:
                write_whole(path, partial(np.save, arr=embeddings))

    @classmethod
    def load(cls, folder: Path, queries: int, gallery: int, multi_query: int | None) -> Embedded:
        """Read what `save` writes, floats of any precision: so many rows each, None for a file that is not needed.

        Raises:
            DataError: a file is missing or unreadable, has other rows, or D differs between them.
        """
        several = None if multi_query is None else _load(folder / "multi_query.npy", multi_query)
        embedded = cls(_load(folder / "query.npy", queries), _load(folder / "gallery.npy", gallery), several)
        parts = (embedded.query, embedded.gallery, embedded.multi_query)
        dims = {part.shape[1] for part in parts if part is not None}
        if len(dims) > 1:
            raise DataError(f"{folder} holds embeddings of {sorted(dims)} values: write all of them with one model")
        return embedded


def multi_query_embeddings(queries: Sequence[Sample], pictures: Sequence[Sample], embeddings: Embeddings) -> Embeddings:
    """One embedding a query [Q, D]: the unit mean over the pictures of its identity and camera (Zheng et al.,
    ICCV 2015).

    Args:
        embeddings: unit embeddings [M, D] of `pictures`.

    Raises:
        DataError: a query has no such picture, or its pictures cancel out.
    """
    own: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, picture in enumerate(pictures):
        own[picture.identity, picture.camera].append(index)
    means = np.empty((len(queries), embeddings.shape[1]), np.float32)
    for row, query in zip(means, queries, strict=True):
        if (query.identity, query.camera) not in own:
            raise DataError(f"multi-query: no picture shows the person of {query.name} in its camera; add some")
        row[:] = embeddings[own[query.identity, query.camera]].mean(axis=0)
        length = np.linalg.norm(row)
        if not length > 0:
            raise DataError(f"multi-query: the embeddings of the person of {query.name} have no mean direction")
        row /= length
    return means


def _load(path: Path, rows: int) -> Embeddings:
    try:
        array = read_array(path)
    except ValueError as error:
        raise DataError(str(error)) from error
    if array.ndim != 2 or len(array) != rows or array.dtype.kind != "f":
        raise DataError(
            f"{path} holds {array.dtype} {array.shape}: floats ({rows}, D) are needed, one row a picture in the "
            "order of the sorted names, junk left out"
        )
    return np.asarray(array, np.float32)
