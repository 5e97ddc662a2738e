"""The single-gallery-shot metric, CUHK03's classic one (Li et al., CVPR 2014): one picture a person answers.

For every query one gallery picture of each identity is drawn, out of what is left when junk and the query's own
identity in its own camera are out; that is repeated, and the figures are means over the draws. With one match a
draw, average precision is 1 / rank. Such an mAP lies well above the standard one, and often above rank-1: the two
do not compare. Distractors (identity 0) count as one identity, as in the code that the field uses.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator, default_rng

from training.retrieval.metrics import (
    PRINTED_RANKS,
    RANKS,
    Distances,
    LabelledPair,
    Labels,
    check_matches,
    finite_rows,
    members_of,
    rank_of,
)

REPEATS = 10


@dataclass(frozen=True)
class SingleShot:
    """Figures in [0, 1]; means over the draws of the queries that have a match."""

    cmc: tuple[float, ...]  # [k - 1]: the match is among the first k, k = 1 ... 50
    mAP: float  # mean of 1 / rank
    repeats: int  # draws a query
    queries: int  # counted
    unmatched: int  # queries without a match, not counted

    def rank(self, k: int) -> float:
        """Share of draws with the match among the first k, 1 <= k <= 50."""
        return rank_of(self.cmc, k)

    def figures(self) -> dict[str, float]:
        """What is printed, by name: rank1, rank5, rank10, rank20, mAP."""
        return {**{f"rank{k}": self.rank(k) for k in PRINTED_RANKS}, "mAP": self.mAP}


def single_gallery_shot(
    distances: Iterable[Distances], labels: LabelledPair, repeats: int = REPEATS, seed: int = 0
) -> SingleShot:
    """Measure on the rows [G] of distances [Q, G], one a query; smaller is nearer, equal ones keep gallery order.

    Raises:
        NoMatch: no query has a match.
        ValueError: shapes disagree, a distance is not finite, or there is no draw.
    """
    if repeats < 1:
        raise ValueError(f"{repeats} draws a query measure nothing: one at least is needed")
    check_matches(labels)
    random = default_rng(seed)
    people = _People(labels.gallery_identities)
    found = np.zeros(RANKS + 1, np.int64)  # the last one: behind the ranks that are counted
    reciprocal, unmatched = [], 0
    rows = finite_rows(distances, labels)
    for row, identity, (_, matches) in zip(rows, labels.query_identities, labels.answers(), strict=True):
        if not matches.size:
            unmatched += 1
            continue
        own = matches[random.integers(matches.size, size=repeats)]
        ranks = _ranks_of_draws(row, own, people.draw(random, int(identity), repeats))
        found += np.bincount(np.minimum(ranks, RANKS + 1) - 1, minlength=RANKS + 1)
        reciprocal.append(np.mean(1 / ranks))
    return SingleShot(
        cmc=tuple((np.cumsum(found[:RANKS]) / (repeats * len(reciprocal))).tolist()),
        mAP=float(np.mean(reciprocal)),
        repeats=repeats,
        queries=len(reciprocal),
        unmatched=unmatched,
    )


class _People:
    """Who is in the gallery, junk apart, and drawing one picture of each."""

    def __init__(self, gallery_identities: Labels) -> None:
        members = {identity: own for identity, own in members_of(gallery_identities).items() if identity >= 0}
        self._identities = np.array(list(members), np.int64)
        self._pictures = np.concatenate(list(members.values()))  # person by person
        self._counts = np.array([len(own) for own in members.values()])
        self._starts = np.cumsum(self._counts) - self._counts

    def draw(self, random: Generator, but: int, repeats: int) -> Labels:
        """Gallery indices [repeats, people]: one picture of everybody but `but`, every one as likely."""
        others = self._identities != but
        counts, starts = self._counts[others], self._starts[others]
        drawn: Labels = self._pictures[starts + random.integers(counts, size=(repeats, counts.size))]
        return drawn


def _ranks_of_draws(row: Distances, own: Labels, others: Labels) -> Labels:
    """Rank [R], from 1, of the picture own[r] among it and others[r], for own [R] and others [R, people]."""
    level = row[own][:, None]
    before = (row[others] < level) | ((row[others] == level) & (others < own[:, None]))
    ranks: Labels = 1 + before.sum(axis=1)
    return ranks
