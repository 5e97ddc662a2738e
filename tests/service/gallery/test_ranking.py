"""Ranking against plain loops, and the pure functions around it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pytest
from numpy.typing import NDArray

from service.gallery import index, ranking
from service.gallery.ranking import Candidates, ImpostorCurve
from service.gallery.records import Answer, Filters, InvalidEmbedding, Labels, NewCrop, Probe, QueryOptions
from tests.service.gallery.cases import (
    START,
    Ranked,
    crop_id,
    lattice,
    new_crop,
    random_filters,
    random_labels,
    rank_by_loops,
    units,
)
from tests.service.gallery.conftest import Opening

IDENTITIES = 12


def shown(answer: Answer) -> list[tuple[str | None, list[str]]]:
    return [(match.identity, [hit.crop.crop_id for hit in match.crops]) for match in answer.matches]


def check_exactly(answer: Answer, expected: list[Ranked], options: QueryOptions) -> None:
    """The answer is the reference's, tie for tie."""
    top = expected[: options.top_k]
    assert shown(answer) == [(r.identity, [c for _, c in r.crops[: options.crops_per_identity]]) for r in top]
    assert [match.crop.crop_id for match in answer.matches] == [r.crops[0][1] for r in top]
    assert [match.rank for match in answer.matches] == list(range(1, len(top) + 1))
    for match, candidate in zip(answer.matches, top, strict=True):
        assert match.distance == pytest.approx(candidate.crops[0][0], abs=1e-6)
        assert match.similarity == 1 - match.distance
        assert match.support == sum(distance < 0.5 for distance, _ in candidate.crops)
    assert answer.searched == sum(len(candidate.crops) for candidate in expected)
    assert answer.exact


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("first_fetch", [4, ranking.FIRST_FETCH])
def test_random_galleries_with_ties_and_filters(
    opening: Opening, monkeypatch: pytest.MonkeyPatch, seed: int, first_fetch: int
) -> None:
    monkeypatch.setattr(ranking, "FIRST_FETCH", first_fetch)
    monkeypatch.setattr(index, "NARROW", seed % 4 * 0.2)  # rows compared one by one: never ... mostly
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 500))
    different = lattice(rng, 1 + count // 8)
    vectors = rng.choice(different, count)
    numbers = rng.permutation(count)  # crop_id order is not enrolment order
    crops = [new_crop(int(n), v, random_labels(rng, IDENTITIES)) for n, v in zip(numbers, vectors, strict=True)]
    with opening(match_distance=0.5) as gallery:
        gallery.enrol(crops)
        for _ in range(20 if opening.quick else 5):
            options = QueryOptions(
                top_k=int(rng.integers(1, 30)),
                crops_per_identity=int(rng.integers(0, 6)),
                filters=random_filters(rng, IDENTITIES),
            )
            query = rng.choice(different, 1) if rng.random() < 0.5 else lattice(rng, 1)
            expected = rank_by_loops(query[0], crops, options.filters)
            check_exactly(gallery.query(query, options), expected, options)


@pytest.mark.parametrize("dim", [7, 64])
def test_random_directions(opening: Opening, monkeypatch: pytest.MonkeyPatch, dim: int) -> None:
    monkeypatch.setattr(ranking, "FIRST_FETCH", 8)
    rng = np.random.default_rng(dim)
    crops = [new_crop(n, v, random_labels(rng, 60)) for n, v in enumerate(units(rng, 400, dim))]
    with opening(dim) as gallery:
        gallery.enrol(crops)
        for query in units(rng, 30 if opening.quick else 8, dim):
            filters = random_filters(rng, 60)
            expected = rank_by_loops(query, crops, filters)
            answer = gallery.query(query[np.newaxis], QueryOptions(top_k=20, filters=filters))
            by_name = {r.identity or r.crops[0][1]: r.crops[0][0] for r in expected}
            distances = [match.distance for match in answer.matches]
            assert distances == pytest.approx([r.crops[0][0] for r in expected[:20]], abs=1e-6)
            assert distances == pytest.approx(
                [by_name[match.identity or match.crop.crop_id] for match in answer.matches], abs=1e-6
            )


def test_one_identity_owns_the_5000_nearest(opening: Opening) -> None:
    rng = np.random.default_rng(0)
    query = units(rng, 1, 24)
    near = query + 0.02 * units(rng, 5000, 24)
    far = query + 1.5 * units(rng, 90, 24)
    crops = [new_crop(n, v, Labels("crowd")) for n, v in enumerate(near)]
    crops += [new_crop(5000 + n, v, Labels(f"p{n // 3}")) for n, v in enumerate(far)]
    with opening(24, match_distance=0.15) as gallery:
        gallery.enrol(crops)
        answer = gallery.query(query, QueryOptions(top_k=10, crops_per_identity=3))
        unit = [NewCrop(c.crop_id, _normalised(c.embedding), None, c.labels) for c in crops]
        expected = rank_by_loops(query[0], unit, Filters())
        assert answer.matches[0].identity == "crowd"
        assert answer.matches[0].support == 5000
        assert [m.identity for m in answer.matches] == [r.identity for r in expected[:10]]
        assert [m.crop.crop_id for m in answer.matches] == [r.crops[0][1] for r in expected[:10]]
        without = QueryOptions(filters=Filters(identities=frozenset({"p3", "p4"})))
        assert {m.identity for m in gallery.query(query, without).matches} == {"p3", "p4"}


def _normalised(vector: NDArray[np.float32] | None) -> NDArray[np.float32]:
    assert vector is not None
    return (vector / np.linalg.norm(vector)).astype(np.float32)


class Noisy:
    """Finds as wrongly as it says, and then in some order among equals."""

    exact = True

    def __init__(self, squared: NDArray[np.float32], mask: NDArray[np.bool_], rng: np.random.Generator) -> None:
        self.error = 0.01
        self._positions = np.flatnonzero(mask)
        self._found = squared[mask] + self.error * rng.uniform(-1, 1, len(self._positions))

    def nearest(self, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        order = np.argsort(self._found)[:k]
        return self._positions[order], self._found[order].astype(np.float32)


@dataclass
class Crops:
    """Identities' codes and crop ids, for ranking."""

    identity: NDArray[np.int32]
    crop_id: NDArray[np.bytes_]

    def members(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.flatnonzero(np.isin(self.identity, codes))


@pytest.mark.parametrize("seed", range(20))
def test_rounding_in_the_search_changes_nothing(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(ranking, "FIRST_FETCH", 2)
    rng = np.random.default_rng(seed)
    vectors = lattice(rng, 300, 16)
    identity = rng.integers(-1, 40, 300).astype(np.int32)
    names = np.array([crop_id(int(n)) for n in rng.permutation(300)], "S36")
    mask = rng.random(300) < 0.7
    crops = [
        NewCrop(names[i].decode(), vectors[i], None, Labels(str(c) if c >= 0 else None))
        for i, c in enumerate(identity)
        if mask[i]
    ]
    query = lattice(rng, 1, 16)[0]
    expected = rank_by_loops(query, crops, Filters())
    top_k = int(rng.integers(1, 12))
    squared = np.asarray(((vectors - query) ** 2).sum(axis=1), np.float32)
    noisy = Noisy(squared, mask, rng)
    crops_of = Crops(identity, names)
    candidates = ranking.rank(noisy, squared.__getitem__, crops_of, mask, int(mask.sum()), top_k)
    assert len(candidates) >= min(top_k, len(expected))
    for place in range(min(top_k, len(expected))):
        positions, _ = candidates.crops(place)
        assert [names[p].decode() for p in positions] == [name for _, name in expected[place].crops]


def test_who_looks_the_other_way_ties_at_distance_one(opening: Opening) -> None:
    query = np.full((1, 16), 0.25, np.float32)
    away, farther = -query[0], -query[0].copy()
    farther[:4] = np.nextafter(np.float16(-0.25), np.float16(-1))  # of unit length as far as float16 can tell
    crops = [new_crop(1, farther), new_crop(2, away), new_crop(3, away)]
    with opening() as gallery:
        gallery.enrol(crops)
        answer = gallery.query(query, QueryOptions(top_k=1))
        everybody = gallery.query(query, QueryOptions(top_k=3))
    assert [match.distance for match in everybody.matches] == [1.0] * 3
    assert [match.crop.crop_id for match in everybody.matches] == [crop_id(1), crop_id(2), crop_id(3)]
    assert answer.matches == everybody.matches[:1]


def test_nothing_to_rank() -> None:
    none, squared = np.zeros(5, np.bool_), np.zeros(5, np.float32)
    crops = Crops(np.zeros(5, np.int32), np.array([crop_id(n) for n in range(5)], "S36"))
    noisy = Noisy(squared, none, np.random.default_rng(0))
    assert len(ranking.rank(noisy, squared.__getitem__, crops, none, 0, 3)) == 0


@pytest.mark.parametrize("seed", range(6))
def test_queries_asked_together_are_answered_as_alone(opening: Opening, seed: int) -> None:
    rng = np.random.default_rng(seed)
    draw = lattice if seed % 2 else units
    crops = [new_crop(n, v, random_labels(rng, 40)) for n, v in enumerate(draw(rng, 1500, 64))]
    with opening(64, match_distance=0.5) as gallery:
        gallery.enrol(crops)
        for crop in crops[::7]:
            gallery.delete(crop.crop_id)
        probes = [
            Probe(
                draw(rng, int(rng.integers(1, 4)), 64),
                QueryOptions(int(rng.integers(1, 30)), int(rng.integers(5)), random_filters(rng, 40)),
            )
            for _ in range(20)
        ]
        probes.insert(7, Probe(np.zeros((1, 64), np.float32)))
        together = gallery.query_all(probes)
        assert isinstance(together.pop(7), InvalidEmbedding)
        assert together == [gallery.query(probe.embeddings, probe.options) for probe in probes[:7] + probes[8:]]
        few = gallery.query_all(probes[:3])  # so few are searched one by one
        assert few == together[:3]


def test_max_distance_bounds_identities_and_crops(opening: Opening) -> None:
    rng = np.random.default_rng(5)
    crops = [new_crop(n, v, Labels(f"p{n % 5}")) for n, v in enumerate(lattice(rng, 200))]
    query = lattice(rng, 1)
    with opening() as gallery:
        gallery.enrol(crops)
        free = gallery.query(query, QueryOptions(crops_per_identity=100))
        distances = sorted({hit.distance for match in free.matches for hit in match.crops})
        bound = distances[len(distances) // 2]
        cut = gallery.query(query, QueryOptions(crops_per_identity=100, max_distance=bound))
    kept = [(m.identity, [h for h in m.crops if h.distance <= bound]) for m in free.matches]
    assert [(m.identity, list(m.crops)) for m in cut.matches] == [(i, hits) for i, hits in kept if hits]
    assert 0 < sum(len(m.crops) for m in cut.matches) < 200
    assert cut.searched == 200


def test_several_shots_are_their_normalised_mean(opening: Opening) -> None:
    rng = np.random.default_rng(7)
    shots = units(rng, 5)
    stored = np.stack([np.float16(shot / np.linalg.norm(np.float64(shot))) for shot in shots])
    mean = np.float64(stored).mean(axis=0)
    query = ranking.combine(shots, 16)
    assert query.dtype == np.float32
    np.testing.assert_allclose(query, mean / np.linalg.norm(mean), atol=1e-3)
    np.testing.assert_array_equal(query, np.float32(np.float16(query)))


def test_what_is_stored_is_at_distance_zero_from_itself() -> None:
    for dim in (3, 16, 2048):
        for embedding in units(np.random.default_rng(dim), 50, dim):
            stored = ranking.stored_form(embedding, dim).astype(np.float32)
            np.testing.assert_array_equal(ranking.combine(embedding[np.newaxis], dim), stored)
            np.testing.assert_array_equal(ranking.combine(stored[np.newaxis], dim), stored)


@pytest.mark.parametrize(
    "embeddings",
    [
        np.zeros((0, 4)),
        np.zeros(4),
        np.zeros((1, 4)),
        np.ones((1, 5)),
        np.full((2, 4), np.nan),
        np.full((1, 4), np.inf),
        np.array([[1, 0, 0, 0], [-1, 0, 0, 0]]),
    ],
)
def test_embeddings_without_direction_are_refused(embeddings: NDArray[np.float64]) -> None:
    with pytest.raises(InvalidEmbedding):
        ranking.combine(embeddings.astype(np.float32), 4)


CURVE = ImpostorCurve((1e-1, 1e-2, 1e-3), (0.6, 0.4, 0.3))


@pytest.mark.parametrize(
    ("rate", "distance"),
    [(1e-1, 0.6), (1e-2, 0.4), (1e-3, 0.3), (10**-1.5, 0.5), (10**-2.25, 0.375), (1e-4, 0.2), (1e-5, 0.1)],
)
def test_the_curve_is_log_linear_and_goes_on_below(rate: float, distance: float) -> None:
    assert CURVE.distance_at(rate) == pytest.approx(distance)
    backwards = ImpostorCurve(CURVE.false_match_rate[::-1], CURVE.distance[::-1])
    assert backwards.distance_at(rate) == pytest.approx(distance)


@pytest.mark.parametrize(("rate", "distance"), [(1.0, 0.6), (0.5, 0.6), (1e-6, 0.0), (1e-9, 0.0), (1e-300, 0.0)])
def test_the_curve_ends_at_its_highest_rate_and_at_zero(rate: float, distance: float) -> None:
    assert CURVE.distance_at(rate) == pytest.approx(distance, abs=1e-12)


@pytest.mark.parametrize("curve", [ImpostorCurve((0.01,), (0.3,)), ImpostorCurve((0.1, 0.01, 0.001), (0.5, 0.3, 0.3))])
def test_a_curve_without_slope_promises_nothing_below(curve: ImpostorCurve) -> None:
    assert curve.distance_at(0.01) == 0.3
    assert curve.distance_at(1.0) >= 0.3
    assert curve.distance_at(0.0009) == 0


@pytest.mark.parametrize("seed", range(20))
def test_a_rarer_false_match_is_never_farther(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 7))
    rates = np.sort(rng.choice(10.0 ** -np.arange(0.5, 6, 0.25), count, replace=False))
    curve = ImpostorCurve(tuple(rates.tolist()), tuple(np.sort(rng.random(count)).tolist()))
    distances = [curve.distance_at(rate) for rate in 10.0 ** np.arange(-12, 0.1, 0.05)]
    assert distances == sorted(distances)
    assert all(0 <= distance <= curve.distance[-1] for distance in distances)
    assert all(curve.distance_at(rates[0] * x) < curve.distance[0] for x in (0.99, 0.5, 1e-3))


@pytest.mark.parametrize(
    ("rates", "distances"),
    [
        ((), ()),
        ((0.1,), (0.2, 0.3)),
        ((0.0, 0.1), (0.1, 0.2)),
        ((0.1, 0.1), (0.1, 0.2)),
        ((0.1, 0.01), (0.2, 0.3)),
        ((0.1, 0.01), (float("nan"), 0.3)),
        ((0.1,), (1.5,)),
    ],
)
def test_no_curve(rates: tuple[float, ...], distances: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="an impostor curve needs"):
        ImpostorCurve(rates, distances)


def test_the_match_distance_shrinks_with_the_gallery() -> None:
    assert ranking.match_distance(None, None, 5) is None
    assert ranking.match_distance(CURVE, 0.25, 5) == 0.25
    assert ranking.match_distance(CURVE, None, 1) == pytest.approx(0.4)
    assert ranking.match_distance(CURVE, None, 10) == pytest.approx(0.3)
    assert ranking.match_distance(CURVE, None, 100) == pytest.approx(0.2)
    assert ranking.match_distance(CURVE, None, 100_000) == 0
    assert ranking.match_distance(None, 0.0, 5) == 0.0


def candidates_at(*distances: float) -> Candidates:
    count = len(distances)
    return Candidates(np.arange(count), np.array(distances, np.float32), np.arange(count + 1))


@pytest.mark.parametrize(
    ("distances", "below", "verdict"),
    [
        ((), 0.3, "unknown"),
        ((), None, None),
        ((0.1,), None, None),
        ((0.1,), 0.3, "match"),
        ((0.1, 0.125), 0.3, "match"),
        ((0.1, 0.11), 0.3, "ambiguous"),
        ((0.25, 0.9), 0.25, "unknown"),
        ((0.3, 0.9), 0.25, "unknown"),
    ],
)
def test_verdicts(distances: tuple[float, ...], below: float | None, verdict: str | None) -> None:
    match_below = None if below is None else np.float32(below)
    assert ranking.verdict(candidates_at(*distances), match_below) == verdict


def at_angle(degrees: float) -> NDArray[np.float32]:
    """A unit vector so far from the first axis; its distance from it is sin(degrees / 2)."""
    vector = np.zeros(16, np.float32)
    vector[:2] = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return vector


def test_verdicts_of_a_gallery(opening: Opening) -> None:
    query = at_angle(0)[np.newaxis]
    one = QueryOptions(top_k=1)
    with opening(curve=CURVE) as gallery:
        assert gallery.query(query, one) == Answer("empty_gallery", (), 0, exact=True)
        gallery.enrol([new_crop(1, at_angle(40), Labels("a", "c1"))])  # distance 0.342, one identity: < 0.4
        assert gallery.query(query, one).verdict == "match"
        gallery.enrol([new_crop(2, at_angle(-41), Labels("b"))])  # two identities: the match distance is 0.37
        answer = gallery.query(query, one)
        assert (answer.verdict, len(answer.matches), answer.matches[0].support) == ("ambiguous", 1, 1)
        gallery.enrol([new_crop(n, at_angle(90), Labels(f"far{n}")) for n in range(3, 12)])
        answer = gallery.query(query, one)  # eleven identities: 0.3
        assert (answer.verdict, answer.matches[0].support) == ("unknown", 0)
        only_a = Filters(cameras=frozenset({"c1"}))
        assert gallery.query(query, QueryOptions(filters=only_a)).verdict == "match"
        near = QueryOptions(filters=only_a, max_distance=0.1)
        below = gallery.query(query, QueryOptions(filters=only_a)).match_distance
        assert below == pytest.approx(0.4)
        assert gallery.query(query, near) == Answer("unknown", (), 1, True, below)
        later = Filters(since=START + timedelta(days=1))
        assert gallery.query(query, QueryOptions(filters=later)) == Answer("unknown", (), 0, True, below)


@pytest.mark.parametrize("towards", [0.0, 1.0])
def test_verdict_and_support_compare_alike(opening: Opening, towards: float) -> None:
    """A match distance that float32 cannot tell from the nearest crop's is not above it, for either."""
    query = at_angle(0)[np.newaxis]
    with opening() as gallery:
        gallery.enrol([new_crop(1, at_angle(40), Labels("a"))])
        distance = gallery.query(query, QueryOptions()).matches[0].distance
    close = float(np.nextafter(distance, towards))
    assert close != distance
    with opening(match_distance=close) as gallery:
        answer = gallery.query(query, QueryOptions())
        assert (answer.verdict, answer.matches[0].support) == ("unknown", 0)
    above = float(np.nextafter(np.float32(distance), np.float32(1)))
    with opening(match_distance=above) as gallery:
        answer = gallery.query(query, QueryOptions())
        assert (answer.verdict, answer.matches[0].support) == ("match", 1)


def test_no_verdict_without_a_match_distance(opening: Opening) -> None:
    with opening() as gallery:
        assert gallery.query(at_angle(0)[np.newaxis], QueryOptions()).verdict == "empty_gallery"
        gallery.enrol([new_crop(1, at_angle(0), Labels("a"))])
        answer = gallery.query(at_angle(0)[np.newaxis], QueryOptions())
        assert (answer.verdict, answer.matches[0].support, answer.matches[0].distance) == (None, None, 0)
