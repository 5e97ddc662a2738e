"""Who is near a query, over Milvus: it finds the candidates, and what ranks them is the embedded gallery's own code.

Milvus returns crops, at most 16,384 of them, and identities are wanted. So those that were found are left out of the
next search until there are enough; then all their crops are fetched, and those that an answer shows are measured anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from service.gallery import ranking
from service.gallery.answering import matches_of, verdict_of
from service.gallery.finding import Compared, Positions, sums_error
from service.gallery.ranking import ImpostorCurve
from service.gallery.records import Answer, HitCrop, QueryOptions
from service.gallery.vectors import Vectors
from service.gallery_milvus.collections import NAME, Collections
from service.gallery_milvus.rows import KEY, SHOWN, VECTOR, hit_of, matrix, passing
from service.gallery_milvus.server import MOST_ROWS, READ_SECONDS, Row, Server, among, both

FIRST_FETCH = 256  # crops of the first search
MOST_ROUNDS = 64  # searches for one answer
MEASURED = 256  # embeddings fetched at once
NAMED, NAMELESS = 'identity != ""', 'identity == ""'
Near = tuple[HitCrop, float]  # a crop and its squared distance, as Milvus says it


class Searcher:
    """Answers queries. Thread-safe."""

    def __init__(
        self,
        server: Server,
        collections: Collections,
        dim: int,
        curve: ImpostorCurve | None,
        match_distance: float | None,
    ) -> None:
        self._server, self._collections, self._dim = server, collections, dim
        self._curve, self._match_distance = curve, match_distance

    def answer(self, query: NDArray[np.float32], options: QueryOptions) -> Answer:
        """Ranks the identities by their distance to a query [D] that is rounded as what is stored."""
        which, strong = passing(options.filters), options.strong
        count = self._server.count(self._collections.crops, which, strong=strong)
        if not count and (not which or not self._server.count(self._collections.crops, strong=strong)):
            return Answer("empty_gallery", (), 0, exact=True)
        below = ranking.match_distance(self._curve, self._match_distance, self._candidates(which, count, strong))
        search = _Search(self._server, self._collections, self._dim, query, which, strong)
        found, complete = search.gather(max(options.top_k, 2))  # the verdict needs the second
        near = _Gathered(list(found.values()), max(options.crops_per_identity, 1))
        compared = Compared(None, near.squared, len(near.squared), sums_error(self._dim))

        def measure(positions: Positions) -> NDArray[np.float32]:
            return search.measure(near, positions)

        nearest = ranking.rank(compared, measure, near, None, len(near.squared), max(options.top_k, 2))
        matches = matches_of(nearest, near, options, below)
        verdict, exact = verdict_of(nearest, below, matches), complete and self._collections.exact
        return Answer(verdict, matches, count, exact, None if below is None else float(below))

    def _candidates(self, which: str, count: int, strong: bool) -> int:
        """How many identities and crops without one are compared; behind filters, and past 16,384 crops, at most."""
        if self._match_distance is not None or self._curve is None:
            return 0  # nobody asks
        crops, names = self._collections.crops, self._collections.names
        if which and count <= MOST_ROWS:
            listed = [row["identity"] for row in self._server.rows(crops, which, ["identity"], strong=strong)]
            return len({name for name in listed if name}) + listed.count("")
        nameless = self._server.count(crops, both(which, NAMELESS), strong=strong)
        return min(count - nameless, self._server.count(names, f'{NAME} != ""', strong=strong)) + nameless


class _Search:
    """The searches for one query."""

    def __init__(
        self,
        server: Server,
        collections: Collections,
        dim: int,
        query: NDArray[np.float32],
        which: str,
        strong: bool,
    ) -> None:
        self._server, self._collections, self._query = server, collections, query
        self._which, self._strong, self._dim = which, strong, dim
        self._error = sums_error(dim)
        self._rounds = 0

    def gather(self, top_k: int) -> tuple[dict[str, Near], bool]:
        """By id all crops of the `top_k` nearest candidates at least; and whether no nearer one can be missing."""
        found: dict[str, Near] = {}
        limit = min(MOST_ROWS, max(FIRST_FETCH, 4 * top_k))
        reached = self._fetch("", limit, found)
        if reached == np.inf:
            return found, True
        complete = True
        if not self._goes_beyond(reached, found, top_k):
            complete = self._named(found, top_k, limit) & self._nameless(found, top_k, limit)
        bound = self._bound(found, top_k)
        chosen = {name for name, squared in _nearest_by_name(found).items() if squared <= bound}
        if chosen:
            self._fetch(among("identity", sorted(chosen)), MOST_ROWS, found)

        def is_kept(crop: HitCrop, squared: float) -> bool:
            return squared <= bound if crop.identity is None else crop.identity in chosen

        return {crop_id: near for crop_id, near in found.items() if is_kept(*near)}, complete

    def _named(self, found: dict[str, Near], top_k: int, limit: int) -> bool:
        """Searches on among the identities that were not found yet, until none of them can be among the nearest."""
        while self._rounds < MOST_ROUNDS:
            names = sorted(_nearest_by_name(found))
            others = both(NAMED, f"not ({among('identity', names)})" if names else "")
            if self._goes_beyond(self._fetch(others, limit, found), found, top_k):
                return True
            limit = min(MOST_ROWS, limit * ranking.GROWTH)
        return False

    def _nameless(self, found: dict[str, Near], top_k: int, limit: int) -> bool:
        """The same among the crops without identity, each of which is a candidate."""
        while not self._goes_beyond(self._fetch(NAMELESS, limit, found), found, top_k):
            if limit == MOST_ROWS:
                return False
            limit = min(MOST_ROWS, limit * ranking.GROWTH)
        return True

    def _bound(self, found: Mapping[str, Near], top_k: int) -> float:
        """The squared distance, as Milvus says it, beyond which nobody is among the `top_k` nearest."""
        nameless = [squared for crop, squared in found.values() if crop.identity is None]
        by_distance = sorted([*nameless, *_nearest_by_name(found).values()])
        bound = by_distance[top_k - 1] + 2 * self._error if len(by_distance) >= top_k else np.inf
        return np.inf if bound >= ranking.OPPOSITE else bound

    def _goes_beyond(self, reached: float, found: Mapping[str, Near], top_k: int) -> bool:
        return reached == np.inf or reached > self._bound(found, top_k)

    def _fetch(self, which: str, limit: int, found: dict[str, Near]) -> float:
        """Adds the nearest crops to `found`; how far it has all of them, infinite where there are no more."""
        self._rounds += 1
        (hits,) = self._server.call(
            "search",
            READ_SECONDS,
            self._collections.crops,
            data=[self._query.tolist()],
            anns_field=VECTOR,
            limit=limit,
            filter=both(self._which, which),
            output_fields=list(SHOWN),
            search_params={"metric_type": "L2", "params": _effort(self._collections.index, limit)},
            **self._server.level(self._strong),
        )
        for hit in hits:
            found[hit["id"]] = hit_of({KEY: hit["id"], **hit["entity"]}), float(hit["distance"])
        return float(hits[-1]["distance"]) if len(hits) == limit else np.inf

    def measure(self, near: _Gathered, positions: Positions) -> NDArray[np.float32]:
        """Squared distances [n]: of what answers show by the embedded gallery's rule, of the others as Milvus says."""
        squared = near.squared[positions].copy()
        wanted = np.flatnonzero(near.may_be_shown(2 * self._error)[positions])
        for start in range(0, len(wanted), MEASURED):
            part = wanted[start : start + MEASURED]
            ids = [near.ids[position] for position in positions[part].tolist()]
            rows = self._server.rows(self._collections.crops, among(KEY, ids), [KEY, VECTOR], strong=self._strong)
            measured = dict(
                zip([row[KEY] for row in rows], measured_squares(self._query, rows, self._dim), strict=True)
            )
            squared[part] = [measured.get(name, was) for name, was in zip(ids, squared[part], strict=True)]
        return squared


class _Gathered:
    """The crops that were found, as ranking and answers need them, by position."""

    def __init__(self, found: Sequence[Near], shown: int) -> None:
        self._crops = [crop for crop, _ in found]
        self.ids = [crop.crop_id for crop in self._crops]
        self.squared = np.array([squared for _, squared in found], np.float32)
        codes: dict[str, int] = {}
        names = [crop.identity for crop in self._crops]
        self.identity = np.array([-1 if n is None else codes.setdefault(n, len(codes)) for n in names], np.int32)
        self.crop_id = np.array(self.ids, "S36")
        self._shown = shown

    def members(self, codes: NDArray[np.int64]) -> Positions:
        """The positions of all crops of these identities."""
        return np.flatnonzero(np.isin(self.identity, codes))

    def crops(self, positions: Positions) -> list[HitCrop]:
        """What an answer shows of the crops there."""
        return [self._crops[position] for position in positions.tolist()]

    def may_be_shown(self, margin: float) -> NDArray[np.bool_]:
        """Which positions [n] may be among the first of their identity, if distances are wrong by half of `margin`."""
        shown = self.identity < 0
        for code in range(int(self.identity.max(initial=-1)) + 1):
            own = np.flatnonzero(self.identity == code)
            last = np.sort(self.squared[own])[min(self._shown, len(own)) - 1]
            shown[own] = self.squared[own] <= last + margin
        return shown


def _nearest_by_name(found: Mapping[str, Near]) -> dict[str, float]:
    nearest: dict[str, float] = {}
    for crop, squared in found.values():
        if crop.identity is not None:
            nearest[crop.identity] = min(squared, nearest.get(crop.identity, np.inf))
    return nearest


def measured_squares(query: NDArray[np.float32], rows: Sequence[Row], dim: int) -> list[float]:
    """Squared distances of a query [D] to rows with embeddings, by the rule of the embedded gallery."""
    vectors = Vectors(dim)
    vectors.append(matrix(rows, dim))
    return vectors.measure(query, np.arange(len(rows))).tolist() if rows else []


def _effort(index: str, limit: int) -> dict[str, int]:
    """How far an approximate index looks for so many crops."""
    match index:
        case "HNSW":
            return {"ef": min(32_768, max(2 * limit, 512))}
        case "GPU_CAGRA":
            return {"itopk_size": max(2 * limit, 128), "search_width": 4}
        case _ if "IVF" in index:
            return {"nprobe": 64}
    return {}
