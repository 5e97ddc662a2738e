"""P x K batches: K pictures of each of P identities (Hermans et al., "In Defense of the Triplet Loss")."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray


def pk_batches(
    labels: Sequence[int], *, identities: int, shots: int, seed: int, epoch: int, short: bool = False
) -> Iterator[NDArray[np.int64]]:
    """Batches of one epoch: indices [identities * shots], grouped by identity.

    The epoch shows about every picture once or, if `short`, `shots` pictures of every identity.

    Every identity's pictures are shuffled and cut into groups of `shots` (an identity with fewer is
    repeated); a batch takes one group each of `identities` different people, drawn in proportion to
    the groups that they have left, so that the epoch ends with few left over. The order depends on
    `seed` and `epoch` alone, so that a resumed run sees what an uninterrupted one would have seen.

    Raises:
        ValueError: fewer different labels than `identities`.
    """
    rng = np.random.default_rng((seed, epoch))
    groups = _groups(np.asarray(labels), shots, rng)
    if len(groups) < identities:
        raise ValueError(f"a batch of {identities} identities cannot be drawn from {len(groups)}")
    people = list(groups)
    left = np.array([1 if short else len(groups[person]) for person in people], dtype=np.float64)
    while np.count_nonzero(left) >= identities:
        drawn = rng.choice(len(people), size=identities, replace=False, p=left / left.sum())
        left[drawn] -= 1
        yield np.concatenate([groups[people[person]].pop() for person in drawn])


def _groups(labels: NDArray[np.int64], shots: int, rng: np.random.Generator) -> dict[int, list[NDArray[np.int64]]]:
    """Each label's shuffled indices in groups of `shots`, filled up from the front where they fall short."""
    groups: dict[int, list[NDArray[np.int64]]] = {}
    for label in np.unique(labels):
        indices = rng.permutation(np.flatnonzero(labels == label))
        count = max(1, len(indices) // shots)
        groups[int(label)] = np.array_split(np.resize(indices, count * shots), count)
    return groups
