"""Who asks and who answers: the pictures of a data set's split as queries and gallery."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

from training.data.dataset import JUNK, UNKNOWN_CAMERA, DataError, Dataset, Sample
from training.data.own import queries_of
from training.retrieval.metrics import LabelledPair

Split = Literal["test", "train", "all"]
PROTOCOLS: dict[Split, str] = {
    "test": "single query, same identity in the same camera and junk left out, distractors kept",
    "train": "the training part, those of its identities too that a run held out; the first crop of each in each "
    "camera is its query",
    "all": "all people, those of the training part too, for a model that learnt from none of them; single query, same "
    "identity in the same camera and junk left out, distractors kept",
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
    """Queries and gallery of a split.

    `train` shows what was memorised: compare with `test`. `all` is `test` with the people of the training part besides,
    of whom those pictures ask that would if they were test people of one's own data.

    Raises:
        DataError: the train part has one picture an identity and camera, so that no gallery is left.
    """
    if split == "test":
        gallery = tuple(sample for sample in data.gallery if sample.identity != JUNK)
        return Ranking(data.query, gallery, data.multi_query)
    if split == "all":
        return _with_training_part(data)
    first: dict[tuple[int, int], Sample] = {}
    for sample in data.train:
        first.setdefault((sample.identity, sample.camera), sample)
    queries = set(first.values())
    gallery = tuple(sample for sample in data.train if sample not in queries)
    if not gallery:
        raise DataError(f"{data.name}: every identity has one training picture a camera; there is no gallery")
    return Ranking(tuple(first.values()), gallery)


def _with_training_part(data: Dataset) -> Ranking:
    test, people = ranking_of(data, "test"), defaultdict[int, list[Sample]](list)
    for sample in data.train:
        people[sample.identity].append(sample)
    queries = {query for pictures in people.values() for query in queries_of(pictures)}
    return Ranking(
        query=(*(sample for sample in data.train if sample in queries), *test.query),
        gallery=(*(sample for sample in data.train if sample not in queries), *test.gallery),
    )
