"""What a model is worth on those who ask and those who answer: Market-1501's protocol and its companions."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from training.data.dataset import DataError, Dataset, Sample, short_name
from training.retrieval.camera_pairs import CameraPairs, camera_pairs
from training.retrieval.embedded import Embedded, multi_query_embeddings
from training.retrieval.embedding import Embeddings, Model, embed_samples
from training.retrieval.metrics import (
    LabelledPair,
    RankMetrics,
    check_matches,
    cosine_distances,
    rank_metrics,
    rank_metrics_of_distances,
)
from training.retrieval.ranking import PROTOCOLS, Ranking, Split, ranking_of
from training.retrieval.rerank import Reciprocal, reranked_distances
from training.retrieval.single_shot import SingleShot, single_gallery_shot

NO_CAMERAS = "cameras unknown: a match of any camera counts"
OPEN = ("sha256", "size", "flip")  # told as null where they are not known
MULTI_QUERY = "multi-query: the mean embedding of all pictures of the query's identity and camera asks"
CAMERA_PAIRS = "queries of one camera among the gallery crops of another"


class StoredModel(Model, Protocol):
    """A model that was read from a file."""

    @property
    def path(self) -> Path: ...


@dataclass(frozen=True)
class Options:
    """What is measured besides the standard figures of single queries.

    Attributes:
        rerank: k-reciprocal re-ranking of the single queries, with its numbers.
        single_gallery_shot: CUHK03's classic metric; measured on CUHK03 in any case.
        camera_pairs: rank-1 and mAP for every pair of cameras.
        multi_query: ask with all pictures of a query's identity and camera.
    """

    rerank: Reciprocal | None = None
    single_gallery_shot: bool = False
    camera_pairs: bool = False
    multi_query: bool = False


STANDARD = Options()


@dataclass(frozen=True)
class Evaluation:
    """What was measured on what."""

    model: str  # path as given
    sha256: str | None  # of the file; None for a folder of embeddings
    data: str
    split: Split
    flip: bool | None  # None of ready embeddings, which do not tell
    size: tuple[int, int] | None  # height, width of the crops; None for a folder of embeddings
    dim: int
    queries: int
    gallery: int
    metrics: RankMetrics
    seconds: float  # embedding and ranking
    cameras: bool = True  # known: else a match of any camera counts
    rerank: Reciprocal | None = None  # of `reranked`
    reranked: RankMetrics | None = None
    single_gallery_shot: SingleShot | None = None
    camera_pairs: CameraPairs | None = None
    camera_names: Mapping[int, str] | None = None  # of `camera_pairs`, where they are called otherwise than 1, 2, …
    multi_query: RankMetrics | None = None

    @property
    def protocol(self) -> str:
        """The protocol of `metrics` in words."""
        return PROTOCOLS[self.split] if self.cameras else f"{PROTOCOLS[self.split]}; {NO_CAMERAS}"

    def further_protocols(self) -> dict[str, str]:
        """What was measured besides `metrics`, by field, and how, in words."""
        words = {}
        if self.reranked and self.rerank:
            k1, k2, original = self.rerank.k1, self.rerank.k2, self.rerank.original
            words["reranked"] = f"k-reciprocal re-ranking, k1 {k1}, k2 {k2}, lambda {original}"
        if self.multi_query:
            words["multi_query"] = MULTI_QUERY
        if self.single_gallery_shot:
            repeats = self.single_gallery_shot.repeats
            words["single_gallery_shot"] = f"single gallery shot: one picture of each identity, {repeats} draws a query"
        if self.camera_pairs:
            words["camera_pairs"] = CAMERA_PAIRS
        return words

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready: what was measured, each with its protocol and its usual figures by name."""
        values = {key: value for key, value in asdict(self).items() if value is not None or key in OPEN}
        for field, words in self.further_protocols().items():
            measured = getattr(self, field)
            figures = {} if isinstance(measured, CameraPairs) else measured.figures()
            values[field] = {**values[field], **figures, "protocol": words}
        return {**values, **self.metrics.figures(), "protocol": self.protocol, "distance": "euclidean/2"}


def evaluate(
    model: StoredModel,
    data: Dataset,
    *,
    split: Split = "test",
    batch: int = 16,
    flip: bool = False,
    save: Path | None = None,
    console: Console | None = None,
    options: Options = STANDARD,
) -> Evaluation:
    """Embed a split's pictures with a model and rank them.

    Args:
        model: an `OnnxModel` or a `TorchModel`.
        flip: embed each crop and its mirror image, and use the mean of both.
        save: folder for the embeddings.
        console: for progress bars; None shows none.
        options: what is measured besides the standard figures.

    Raises:
        ModelError, DataError, NoMatch: the model or the data cannot be used; the message says why.
    """
    ranking = ranking_of(data, split)
    _check_options(options, ranking, data.name)
    several = ranking.multi_query if options.multi_query else ()
    began = time.monotonic()
    with _progress(console) as bar:
        task = bar.add_task("embedding", total=len(ranking.query) + len(ranking.gallery) + len(several))

        def embed(samples: Sequence[Sample]) -> Embeddings:
            return embed_samples(model, samples, batch, flip, lambda n: bar.update(task, advance=n))

        embedded = Embedded(embed(ranking.query), embed(ranking.gallery), embed(several) if several else None)
    if save is not None:
        embedded.save(save)
    size = (model.height, model.width)
    return _measure(model.path, data, split, ranking, embedded, began, options, console, size=size, flip=flip)


def evaluate_embeddings(
    folder: Path,
    data: Dataset,
    *,
    split: Split = "test",
    console: Console | None = None,
    options: Options = STANDARD,
) -> Evaluation:
    """Rank by the embeddings in query.npy and gallery.npy (and multi_query.npy) of `folder`.

    Raises:
        DataError, NoMatch: an array is missing, its rows are not the data set's pictures, or nothing can be measured.
    """
    began = time.monotonic()
    ranking = ranking_of(data, split)
    _check_options(options, ranking, data.name)
    rows = len(ranking.query), len(ranking.gallery), len(ranking.multi_query) if options.multi_query else None
    embedded = Embedded.load(folder, *rows)
    return _measure(folder, data, split, ranking, embedded, began, options, console)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal: the name of a model."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_options(options: Options, ranking: Ranking, name: str) -> None:
    """Before anything is embedded: raises NoMatch where nothing can be measured, and DataError where something was
    asked for that the data cannot give."""
    check_matches(ranking.labels())
    if options.camera_pairs and not ranking.knows_cameras:
        raise DataError(f"{name}: there are no camera pairs where no camera is known")
    if options.multi_query and not ranking.knows_cameras:
        raise DataError(f"{name}: multi-query averages over a query's camera, and no camera is known")
    if options.multi_query and not ranking.multi_query:
        raise DataError(
            f"{name} has no pictures for multi-query in this split: only the market1501 layout has them, in gt_bbox "
            "(a folder or zip beside the query folder), for the test split"
        )


def _measure(
    path: Path,
    data: Dataset,
    split: Split,
    ranking: Ranking,
    embedded: Embedded,
    began: float,
    options: Options,
    console: Console | None,
    *,
    size: tuple[int, int] | None = None,
    flip: bool | None = None,
) -> Evaluation:
    query, gallery, labels = embedded.query, embedded.gallery, ranking.labels()
    metrics = rank_metrics(query, gallery, labels)
    shot = pairs = several = reranked = None
    if options.single_gallery_shot or short_name(data.name).startswith("cuhk03"):
        shot = single_gallery_shot(cosine_distances(query, gallery), labels)
    if options.camera_pairs:
        pairs = camera_pairs(query, gallery, labels)
    if embedded.multi_query is not None:
        means = multi_query_embeddings(ranking.query, ranking.multi_query, embedded.multi_query)
        several = rank_metrics(means, gallery, labels)
    if options.rerank:
        reranked = _reranked(embedded, labels, options.rerank, console)
    return Evaluation(
        model=str(path),
        sha256=file_sha256(path) if path.is_file() else None,
        data=data.name,
        split=split,
        flip=flip,
        size=size,
        dim=query.shape[1],
        queries=len(query),
        gallery=len(gallery),
        metrics=metrics,
        seconds=round(time.monotonic() - began, 2),
        cameras=ranking.knows_cameras,
        rerank=options.rerank,
        reranked=reranked,
        single_gallery_shot=shot,
        camera_pairs=pairs,
        camera_names=dict(data.cameras) if pairs and data.cameras else None,
        multi_query=several,
    )


def _reranked(embedded: Embedded, labels: LabelledPair, settings: Reciprocal, console: Console | None) -> RankMetrics:
    with _progress(console) as bar:
        task = bar.add_task("re-ranking", total=2 * len(embedded.query) + len(embedded.gallery))
        rows = reranked_distances(embedded.query, embedded.gallery, settings, lambda n: bar.update(task, advance=n))
        return rank_metrics_of_distances(rows, labels)


def _progress(console: Console | None) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=console is None)
