"""Market-1501's protocol through a running service: `python -m benchmarks.market1501_service --data market1501`.

Enrol the gallery first: `resight enrol market1501/bounding_box_test.zip` (junk is left out by itself). Rank-1
comes from the answers of `POST /query`, mAP from the embeddings of `POST /embed`; both must be those of
`training/evaluate.py` on the model file that the service has loaded.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from rich.progress import track

from service.client import DEFAULT_URL, Resight, ResightError
from training.data import market1501
from training.data.dataset import DataError, Sample
from training.retrieval.metrics import rank_metrics
from training.retrieval.ranking import ranking_of

S = TypeVar("S")
T = TypeVar("T")
TOP_K, CROPS_PER_IDENTITY = 50, 100
EMBED_BATCH, IN_FLIGHT = 32, 4


def crop_id(data: bytes) -> str:
    """The service's name for an uploaded file."""
    return str(uuid.UUID(bytes=hashlib.sha256(data).digest()[:16]))


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 measured, 2 not possible."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--url", default=DEFAULT_URL)
    options = parser.parse_args(argv)
    try:
        ranking = ranking_of(market1501.read(options.data), "test")
        with Resight(options.url) as client:
            enrolled = check_gallery(client, ranking.gallery)
            rank1 = rank1_of_answers(client, ranking.query, enrolled)
            query, gallery = embed(client, ranking.query, "queries"), embed(client, ranking.gallery, "gallery")
            served = client.model()
    except (DataError, ResightError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    metrics = rank_metrics(query, gallery, ranking.labels())
    print(f"{served.name}: {len(ranking.query):,} queries, {len(ranking.gallery):,} crops enrolled")
    print(f"POST /query  rank-1 {100 * rank1:.2f}")
    print(f"POST /embed  rank-1 {100 * metrics.rank(1):.2f}, mAP {100 * metrics.mAP:.2f}")
    return 0


def check_gallery(client: Resight, gallery: Sequence[Sample]) -> dict[str, Sample]:
    """Crop id -> sample; raises DataError unless exactly these crops are enrolled."""
    expected = {crop_id(sample.read()): sample for sample in gallery}
    enrolled = {crop.crop_id for crop in client.crops()}
    if enrolled != set(expected):
        raise DataError(
            f"the service holds {len(enrolled & set(expected)):,} of the {len(expected):,} gallery crops and "
            f"{len(enrolled - set(expected)):,} others: start it on an empty folder and enrol bounding_box_test"
        )
    return expected


def rank1_of_answers(client: Resight, queries: Sequence[Sample], enrolled: dict[str, Sample]) -> float:
    """Share of queries whose nearest crop, those of their own identity and camera struck out, is of their identity."""

    def hit(sample: Sample) -> bool:
        answer = client.query([sample.read()], top_k=TOP_K, crops_per_identity=CROPS_PER_IDENTITY)
        crops = sorted((crop.distance, crop.crop_id) for match in answer.matches for crop in match.crops)
        kept = (enrolled[name] for _, name in crops)
        own = (sample.identity, sample.camera)
        return next(crop.identity for crop in kept if (crop.identity, crop.camera) != own) == sample.identity

    return float(np.mean(concurrently(hit, queries, "queries")))


def embed(client: Resight, samples: Sequence[Sample], what: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Embeddings float32 [N, D] through `POST /embed`."""
    batches = [samples[first : first + EMBED_BATCH] for first in range(0, len(samples), EMBED_BATCH)]
    return np.concatenate(concurrently(lambda batch: client.embed([s.read() for s in batch]), batches, what))


def concurrently(function: Callable[[S], T], items: Sequence[S], what: str) -> list[T]:
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        return list(track(pool.map(function, items), description=what, total=len(items)))


if __name__ == "__main__":
    sys.exit(main())
