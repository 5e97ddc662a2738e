"""From ranked candidates to the answer of a query: what the options let through, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from service.gallery import ranking
from service.gallery.finding import Positions
from service.gallery.ranking import Candidates
from service.gallery.records import Hit, HitCrop, Match, QueryOptions, Verdict


class Shown(Protocol):
    """The crops as an answer shows them."""

    def crops(self, positions: Positions) -> list[HitCrop]:
        """What an answer shows of the crops there."""


def verdict_of(nearest: Candidates, match_below: np.float32 | None, matches: Sequence[Match]) -> Verdict | None:
    """The verdict of the candidates; a match that the options cut off is `unknown`."""
    verdict = ranking.verdict(nearest, match_below)
    return "unknown" if verdict is not None and not matches else verdict


def matches_of(
    nearest: Candidates, shown: Shown, options: QueryOptions, match_below: np.float32 | None
) -> tuple[Match, ...]:
    """The candidates and crops that the options let through."""
    reach = np.inf if options.max_distance is None else options.max_distance
    near = [nearest.crops(place) for place in range(min(options.top_k, len(nearest)))]
    near = [(positions, distances) for positions, distances in near if distances[0] <= reach]
    most = max(options.crops_per_identity, 1)
    counts = [min(most, int(np.count_nonzero(distances <= reach))) for _, distances in near]
    chosen = [positions[:count] for (positions, _), count in zip(near, counts, strict=True)]
    crops = iter(shown.crops(np.concatenate([np.empty(0, np.int64), *chosen])))
    matches = []
    for place, ((_, distances), count) in enumerate(zip(near, counts, strict=True)):
        hits = tuple(Hit(next(crops), distance) for distance in distances[:count].tolist())
        matches.append(
            Match(
                rank=place + 1,
                identity=hits[0].crop.identity,
                distance=hits[0].distance,
                similarity=1 - hits[0].distance,
                crop=hits[0].crop,
                support=None if match_below is None else int(np.count_nonzero(distances < match_below)),
                crops=hits[: options.crops_per_identity],
            )
        )
    return tuple(matches)
