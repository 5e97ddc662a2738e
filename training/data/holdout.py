"""Identities kept out of training, to measure on them what was never learnt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from training.data.dataset import DataError, Sample

FEWEST = 2  # identities that training needs


def hold_out(samples: Sequence[Sample], identities: int, seed: int) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Split off `identities` people: (kept, held out), both in the given order.

    Who is held out depends on `seed` and on the set of identities alone, not on the order or number of pictures.

    Raises:
        DataError: fewer than two identities would be left.
    """
    people = sorted({sample.identity for sample in samples})
    if len(people) - identities < FEWEST:
        most = max(0, len(people) - FEWEST)
        remedy = f"{most} or less" if most > 1 else "0"  # one alone has no strangers
        raise DataError(
            f"{identities} of {len(people)} training identities cannot be held out, because training needs "
            f"{FEWEST} at least: set calibration_identities to {remedy}"
        )
    chosen = set(np.random.default_rng(seed).permutation(people)[:identities].tolist())
    kept = tuple(sample for sample in samples if sample.identity not in chosen)
    return kept, tuple(sample for sample in samples if sample.identity in chosen)


def stranger_pairs(samples: Sequence[Sample]) -> int:
    """How many pairs of pictures are of two people."""
    pictures = Counter(sample.identity for sample in samples)
    return (len(samples) ** 2 - sum(count**2 for count in pictures.values())) // 2
