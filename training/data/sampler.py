"""P x K batches: K pictures of each of P identities (Hermans et al., "In Defense of the Triplet Loss")."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import UNKNOWN_CAMERA

Indices = NDArray[np.int64]


def pk_batches(
    labels: Sequence[int],
    cameras: Sequence[int] | None = None,
    *,
    identities: int,
    shots: int,
    seed: int,
    epoch: int,
    short: bool = False,
) -> Iterator[Indices]:
    """Batches of one epoch: indices [identities * shots], grouped by identity.

    The epoch shows about every picture once or, if `short`, `shots` pictures of every identity.

    Every identity's pictures are shuffled and cut into groups of `shots` (an identity with fewer is
    repeated); a batch takes one group each of `identities` different people, drawn in proportion to
    the groups that they have left, so that the epoch ends with few left over. The order depends on
    `seed` and `epoch` alone, so that a resumed run sees what an uninterrupted one would have seen.

    With `cameras`, a group shows as many different cameras of its identity as there are (the paper's
    groups, section 4.2: an image stands for its person in its camera); an unknown camera equals no other.

    Raises:
        ValueError: fewer different labels than `identities`.
    """
    rng = np.random.default_rng((seed, epoch))
    groups = _groups(np.asarray(labels), None if cameras is None else np.asarray(cameras), shots, rng)
    if len(groups) < identities:
        raise ValueError(
            f"a batch of {identities} identities cannot be drawn from {len(groups)}: "
            f"set identities to {len(groups)} or less"
        )
    people = list(groups)
    left = np.array([1 if short else len(groups[person]) for person in people], dtype=np.float64)
    while np.count_nonzero(left) >= identities:
        drawn = rng.choice(len(people), size=identities, replace=False, p=left / left.sum())
        left[drawn] -= 1
        yield np.concatenate([groups[people[person]].pop() for person in drawn])


def _groups(labels: Indices, cameras: Indices | None, shots: int, rng: np.random.Generator) -> dict[int, list[Indices]]:
    """Each label's shuffled indices in groups of `shots`."""
    groups: dict[int, list[Indices]] = {}
    for label in np.unique(labels):
        indices = rng.permutation(np.flatnonzero(labels == label))
        count = max(1, len(indices) // shots)
        if cameras is None:
            groups[int(label)] = np.array_split(np.resize(indices, count * shots), count)
        else:
            piles = _piles(indices, cameras[indices])
            spread = [_spread(piles, shots, rng) for _ in range(count)]
            groups[int(label)] = [spread[n] for n in rng.permutation(count)]  # the first have the fullest cameras
    return groups


class _Pile:
    """The pictures of one person in one camera, dealt one by one and then again."""

    def __init__(self, indices: Indices) -> None:
        self.indices = indices
        self.dealt = 0

    @property
    def left(self) -> int:
        """Pictures not dealt yet, less those dealt again."""
        return len(self.indices) - self.dealt

    def deal(self) -> int:
        self.dealt += 1
        return int(self.indices[(self.dealt - 1) % len(self.indices)])


def _piles(indices: Indices, cameras: Indices) -> list[_Pile]:
    known = [_Pile(indices[cameras == camera]) for camera in np.unique(cameras) if camera != UNKNOWN_CAMERA]
    return known + [_Pile(index) for index in indices[cameras == UNKNOWN_CAMERA][:, None]]


def _spread(piles: list[_Pile], shots: int, rng: np.random.Generator) -> Indices:
    """One group: a picture of every camera, the fullest first, then more of those with most left."""
    fullest = sorted((piles[n] for n in rng.permutation(len(piles))), key=lambda pile: -pile.left)
    group = [pile.deal() for pile in fullest[:shots]]
    while len(group) < shots:
        group.append(max(fullest, key=lambda pile: pile.left).deal())
    return np.array(group)
