"""Market-1501's protocol: who asks, who answers, and what a model is worth on them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from training.data.dataset import JUNK, DataError, Dataset, Sample
from training.retrieval.embedding import Embeddings, Model, embed_samples
from training.retrieval.metrics import LabelledPair, RankMetrics, rank_metrics

Split = Literal["test", "train"]
PRINTED_RANKS = (1, 5, 10, 20)
PROTOCOLS: dict[Split, str] = {
    "test": "single query, same identity in the same camera and junk left out, distractors kept",
    "train": "identities seen in training; the first crop of each in each camera is its query",
}


class StoredModel(Model, Protocol):
    """A model that was read from a file."""

    @property
    def path(self) -> Path: ...


@dataclass(frozen=True)
class Ranking:
    """The pictures that ask and the pictures that answer, in the order of the embeddings."""

    query: tuple[Sample, ...]
    gallery: tuple[Sample, ...]

    def labels(self) -> LabelledPair:
        return LabelledPair.of(
            [sample.identity for sample in self.query],
            [sample.camera for sample in self.query],
            [sample.identity for sample in self.gallery],
            [sample.camera for sample in self.gallery],
        )


@dataclass(frozen=True)
class Evaluation:
    """What was measured on what."""

    model: str  # path as given
    sha256: str | None  # of the file; None for a folder of embeddings
    data: str
    split: Split
    flip: bool
    size: tuple[int, int] | None  # height, width of the crops; None for a folder of embeddings
    dim: int
    queries: int
    gallery: int
    metrics: RankMetrics
    seconds: float  # embedding and ranking

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, with the protocol and the usual ranks spelt out."""
        ranks = {f"rank{k}": self.metrics.rank(k) for k in PRINTED_RANKS}
        return {**asdict(self), **ranks, "protocol": PROTOCOLS[self.split], "distance": "euclidean/2"}


@dataclass(frozen=True)
class Embedded:
    """Unit embeddings of a ranking: query [Q, D] and gallery [G, D]."""

    query: Embeddings
    gallery: Embeddings

    def save(self, folder: Path) -> None:
        """Write query.npy and gallery.npy."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "query.npy", self.query)
        np.save(folder / "gallery.npy", self.gallery)

    @classmethod
    def load(cls, folder: Path, ranking: Ranking) -> Embedded:
        """Read query.npy and gallery.npy; raises DataError unless their rows are the ranking's pictures."""
        return cls(_load(folder / "query.npy", len(ranking.query)), _load(folder / "gallery.npy", len(ranking.gallery)))


def ranking_of(data: Dataset, split: Split) -> Ranking:
    """Queries and gallery of a split. `train` shows what was memorised: compare with `test`.

    Raises:
        DataError: the train part has one picture an identity and camera, so that no gallery is left.
    """
    if split == "test":
        return Ranking(data.query, tuple(sample for sample in data.gallery if sample.identity != JUNK))
    first: dict[tuple[int, int], Sample] = {}
    for sample in data.train:
        first.setdefault((sample.identity, sample.camera), sample)
    queries = set(first.values())
    gallery = tuple(sample for sample in data.train if sample not in queries)
    if not gallery:
        raise DataError(f"{data.name}: every identity has one training picture a camera; there is no gallery")
    return Ranking(tuple(first.values()), gallery)


def evaluate(
    model: StoredModel,
    data: Dataset,
    *,
    split: Split = "test",
    batch: int = 16,
    flip: bool = False,
    save: Path | None = None,
    console: Console | None = None,
) -> Evaluation:
    """Embed a split's pictures with a model and rank them.

    Args:
        model: an `OnnxModel` or a `TorchModel`.
        flip: embed each crop and its mirror image, and use the mean of both.
        save: folder for the embeddings.
        console: for a progress bar; None shows none.

    Raises:
        ModelError, DataError: the model or the data cannot be used; the message says why.
    """
    ranking = ranking_of(data, split)
    began = time.monotonic()
    with _progress(console) as bar:
        task = bar.add_task("embedding", total=len(ranking.query) + len(ranking.gallery))

        def embed(samples: Sequence[Sample]) -> Embeddings:
            return embed_samples(model, samples, batch, flip, lambda n: bar.update(task, advance=n))

        embedded = Embedded(embed(ranking.query), embed(ranking.gallery))
    if save is not None:
        embedded.save(save)
    size = (model.height, model.width)
    return _measure(model.path, data, split, ranking, embedded, began, size=size, flip=flip)


def evaluate_embeddings(folder: Path, data: Dataset, *, split: Split = "test") -> Evaluation:
    """Rank by the embeddings in query.npy and gallery.npy of `folder`.

    Raises:
        DataError: an array is missing, or its rows are not the data set's pictures.
    """
    began = time.monotonic()
    ranking = ranking_of(data, split)
    return _measure(folder, data, split, ranking, Embedded.load(folder, ranking), began)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal: the name of a model."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _measure(
    path: Path,
    data: Dataset,
    split: Split,
    ranking: Ranking,
    embedded: Embedded,
    began: float,
    *,
    size: tuple[int, int] | None = None,
    flip: bool = False,
) -> Evaluation:
    metrics = rank_metrics(embedded.query, embedded.gallery, ranking.labels())
    return Evaluation(
        model=str(path),
        sha256=file_sha256(path) if path.is_file() else None,
        data=data.name,
        split=split,
        flip=flip,
        size=size,
        dim=embedded.query.shape[1],
        queries=len(embedded.query),
        gallery=len(embedded.gallery),
        metrics=metrics,
        seconds=round(time.monotonic() - began, 2),
    )


def _load(path: Path, rows: int) -> Embeddings:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is no readable .npy file: {error}") from error
    if array.ndim != 2 or len(array) != rows or array.dtype.kind != "f":
        raise DataError(
            f"{path} holds {array.dtype} {array.shape}: floats ({rows}, D) are needed, one row a picture in the "
            "order of the sorted names, junk left out"
        )
    return np.asarray(array, np.float32)


def _progress(console: Console | None) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=console is None)
