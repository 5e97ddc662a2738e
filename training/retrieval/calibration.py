"""How near strangers come: the impostor-distance curve that the service takes its match distance from."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from training.retrieval.metrics import lengths_of

RATES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
MEASURED_PAIRS = 10  # a quantile with fewer pairs below it is a matter of luck
FEWEST_PAIRS = 100
FEW_PEOPLE = 30  # below, the curve is one of these few: `resight calibrate` warns of as many
BINS = 2**20  # of the distance: a millionth is far below what float32 embeddings tell
CHUNK_PAIRS = 2**22


def doubt(people: int) -> str | None:
    """What is to be said of the distances of so few strangers; None of enough, or of none at all."""
    if not 0 < people < FEW_PEOPLE:
        return None
    return (
        f"{people} held-out people are too few for a match distance that can be trusted, which takes {FEW_PEOPLE}: "
        "`resight calibrate` measures one on people that were not learnt"
    )


def impostor_curve(embeddings: NDArray[np.float32], identities: ArrayLike) -> dict[str, list[Any]]:
    """The distance under which a share of the pairs of different people lies, at false-match rates 1e-1 ... 1e-5.

    All pairs of crops of different identities count, those of one camera too: the service searches all cameras, and
    strangers before the same background are the nearest. Where fewer than 10 pairs lie below a rate, its distance is
    extrapolated on the line in log10(rate) through the rate of 10 pairs and ten times it: for the tail of a normal
    distribution that line runs below the true curve, so that what is extrapolated errs to the strict side.

    Args:
        embeddings: [N, D] of any length but zero, of people that the model was never trained on. The distance is
            ‖a − b‖₂ / 2 between unit vectors, in [0, 1].
        identities: [N] numbers above 0: junk and distractors are nobody in particular.

    Returns:
        `false_match_rate`, `distance` and `extrapolated`, a list of 5 each: the model file's metadata.

    Raises:
        ValueError: shapes disagree, an embedding is zero or not finite, an identity is none, or there are fewer
            than 100 pairs.
    """
    people = np.asarray(identities)
    if embeddings.ndim != 2 or people.shape != embeddings.shape[:1]:
        raise ValueError(f"embeddings {embeddings.shape} and identities {people.shape} must be [N, D] and [N]")
    if people.size and people.min() < 1:
        raise ValueError("distances between strangers need known people: leave junk and distractors out")
    unit = embeddings / lengths_of("calibration", embeddings)[:, None]
    below = np.cumsum(_histogram(np.asarray(unit, np.float32), people))
    pairs = int(below[-1])
    if pairs < FEWEST_PAIRS:
        raise ValueError(
            f"{people.size} crops make {pairs} pairs of different people: {FEWEST_PAIRS} at least are needed to "
            "measure distances between strangers; hold out more identities"
        )
    rarest = MEASURED_PAIRS / pairs
    measured = [rate * pairs >= MEASURED_PAIRS for rate in RATES]
    start, decade = _quantile(below, rarest), _quantile(below, min(10 * rarest, 0.5))
    slope = (decade - start) / np.log10(min(10 * rarest, 0.5) / rarest)
    distances = [
        _quantile(below, rate) if known else max(0.0, start - slope * float(np.log10(rarest / rate)))
        for rate, known in zip(RATES, measured, strict=True)
    ]
    return {
        "false_match_rate": list(RATES),
        "distance": [round(float(distance), 6) for distance in distances],
        "extrapolated": [not known for known in measured],
    }


def _histogram(unit: NDArray[np.float32], people: NDArray[Any]) -> NDArray[np.int64]:
    """How many pairs of different people lie in each bin of the distance [BINS]."""
    counts = np.zeros(BINS, np.int64)
    step = max(1, CHUNK_PAIRS // max(1, len(unit)))
    for start in range(0, len(unit), step):
        stop = start + step
        cosines = unit[start:stop] @ unit[start:].T
        strangers = np.triu(people[start:stop, None] != people[None, start:], 1)  # each pair once
        distances = np.sqrt(np.clip((1 - cosines[strangers]) / 2, 0, 1))  # ‖a − b‖² = 2 − 2 cos
        counts += np.bincount(np.minimum((distances * BINS).astype(np.int64), BINS - 1), minlength=BINS)
    return counts


def _quantile(below: NDArray[np.int64], rate: float) -> float:
    """The quantile by linear interpolation between pairs, from how many lie in the bins up to each."""
    place = rate * (below[-1] - 1)
    first = int(place)
    nearer, farther = (np.searchsorted(below, [first, min(first + 1, below[-1] - 1)], side="right") + 0.5) / BINS
    return float(nearer + (place - first) * (farther - nearer))
