"""Who asks and who answers: the pictures of a data set's split as queries and gallery."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from training.data.dataset import JUNK, UNKNOWN_CAMERA, DataError, Dataset, Sample
from training.retrieval.metrics import LabelledPair

Split = Literal["test", "train"]
PROTOCOLS: dict[Split, str] = {
    "test": "single query, same identity in the same camera and junk left out, distractors kept",
    "train": "the training part; identities seen in training; the first crop of each in each camera is its query",
}


@dataclass(frozen=True)
class Ranking:
    """The pictures that ask and the pictures that answer, in the order of the embeddings.

    `multi_query` holds the pictures that are averaged to multi-queries, of the identities and cameras of `query`.
    """

    query: tuple[Sample, ...]
    gallery: tuple[Sample, ...]
    multi_query: tuple[Sample, ...] = ()

    def labels(self) -> LabelledPair:
        return LabelledPair.of(
            [sample.identity for sample in self.query],
            [sample.camera for sample in self.query],
            [sample.identity for sample in self.gallery],
            [sample.camera for sample in self.gallery],
        )

    @property
    def knows_cameras(self) -> bool:
        return any(sample.camera != UNKNOWN_CAMERA for sample in (*self.query, *self.gallery))


def ranking_of(data: Dataset, split: Split) -> Ranking:
    """Queries and gallery of a split. `train` shows what was memorised: compare with `test`.

    Raises:
        DataError: the train part has one picture an identity and camera, so that no gallery is left.
    """
    if split == "test":
        gallery = tuple(sample for sample in data.gallery if sample.identity != JUNK)
        return Ranking(data.query, gallery, data.multi_query)
    first: dict[tuple[int, int], Sample] = {}
    for sample in data.train:
        first.setdefault((sample.identity, sample.camera), sample)
    queries = set(first.values())
    gallery = tuple(sample for sample in data.train if sample not in queries)
    if not gallery:
        raise DataError(f"{data.name}: every identity has one training picture a camera; there is no gallery")
    return Ranking(tuple(first.values()), gallery)
