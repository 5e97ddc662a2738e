"""The first stage of large galleries: what it finds, when it is built, and what makes it give way to another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from service.gallery import building, index, memory, stage
from service.gallery.building import Searching, StageBuilder
from service.gallery.gallery import Gallery
from service.gallery.records import Filters, GalleryUnavailable, Labels, NewCrop, Probe, QueryOptions
from service.gallery.stage import FirstStage, Kind, cells
from tests.service.gallery.cases import MODEL, crop_id, units, until

DIM = 32
PEOPLE, SHOTS = 300, 6


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "CHECK_SECONDS", 0.01)
    monkeypatch.setattr(index, "COMPACT_MINIMUM", 100)


def people(rng: np.random.Generator, count: int, shots: int) -> NDArray[np.float32]:
    """Shots of people, near each other [count * shots, DIM]."""
    vectors = np.repeat(units(rng, count, DIM), shots, axis=0) + 0.4 * units(rng, count * shots, DIM)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def enrolled(vectors: NDArray[np.float32], first: int = 0) -> list[NewCrop]:
    return [
        NewCrop(crop_id(first + n), v, None, Labels(f"p{(first + n) // SHOTS}", f"c{(first + n) % 5}"))
        for n, v in enumerate(vectors)
    ]


def opened(folder: Path, kind: building.IndexKind = "ivf") -> Gallery:
    return Gallery.open(folder, MODEL, "model-a", DIM, None, 0.3, Searching(kind))


def staged(gallery: Gallery) -> None:
    until(lambda: gallery._index.staged)


def agreement(gallery: Gallery, probes: NDArray[np.float32], filters: Filters) -> float:
    """The share of the ten nearest identities of exact answers that likely crops have, too."""
    shares = []
    for probe in probes:
        options = QueryOptions(10, 2, filters)
        near, all_of_them = gallery.query_all(
            [Probe(probe[None], options), Probe(probe[None], QueryOptions(10, 2, filters, exact=True))]
        )
        assert not isinstance(near, Exception)
        assert not isinstance(all_of_them, Exception)
        assert (near.exact, all_of_them.exact) == (False, True)
        assert near.searched == all_of_them.searched
        expected = {match.identity: match for match in all_of_them.matches}
        same = [match for match in near.matches if match.identity in expected]
        for match in same:  # with the same crops, at the same distances
            assert match.crops == expected[match.identity].crops
        shares.append(len(same) / len(expected))
    return float(np.mean(shares))


@pytest.mark.parametrize("kind", ["ivf", "hnsw", "compressed"])
def test_likely_crops_are_mostly_the_nearest_even_of_strangers(tmp_path: Path, kind: building.IndexKind) -> None:
    rng = np.random.default_rng(1)
    crops = enrolled(people(rng, PEOPLE, SHOTS))
    with opened(tmp_path, kind) as gallery:
        gallery.enrol(crops[:1500])
        staged(gallery)
        gallery.enrol(crops[1500:])  # they join it
        assert gallery._index.staged
        probes = people(rng, 20, 1)
        assert agreement(gallery, probes, Filters()) > 0.9
        assert agreement(gallery, probes, Filters(exclude_cameras=frozenset({"c1"}))) > 0.9
        assert agreement(gallery, probes, Filters(cameras=frozenset({"c3"}))) > 0.9
        answer = gallery.query(probes[:1], QueryOptions(filters=Filters(identities=frozenset({"p7"}))))
        assert answer.exact  # so narrow that every crop was measured
        for crop in crops[:60]:
            gallery.delete(crop.crop_id)
        assert gallery._index.staged
        assert agreement(gallery, probes, Filters()) > 0.9
        everybody = gallery.query(probes[:1], QueryOptions(top_k=1000))
        assert {match.identity for match in everybody.matches} == {f"p{n}" for n in range(10, PEOPLE)}


def test_a_gallery_that_is_small_or_exact_has_none(tmp_path: Path) -> None:
    assert Searching("auto").stage_for(50_000) is None
    assert Searching("auto").stage_for(50_001) == "ivf"
    assert Searching("hnsw").stage_for(50_001) == "hnsw"
    assert Searching("exact").stage_for(10**7) is None
    assert Searching("ivf").stage_for(999) is None
    rng = np.random.default_rng(2)
    with opened(tmp_path, "exact") as gallery:
        gallery.enrol(enrolled(people(rng, 200, SHOTS)))
        assert gallery.query(units(rng, 1, DIM), QueryOptions()).exact


def test_erasing_many_builds_another_and_erasing_most_leaves_none(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    crops = enrolled(people(rng, PEOPLE, SHOTS))
    with opened(tmp_path) as gallery:
        gallery.enrol(crops)
        staged(gallery)
        before = gallery._index._stage
        for crop in crops[:500]:
            gallery.delete(crop.crop_id)
        until(lambda: gallery._index._stage not in (None, before) and len(gallery._index._stage) < len(crops))
        probe = crops[900].embedding
        assert probe is not None
        assert gallery.query(probe[None], QueryOptions()).matches[0].crop.crop_id == crops[900].crop_id
        for crop in crops[500:900]:
            gallery.delete(crop.crop_id)
        until(lambda: not gallery._index.staged)
        assert gallery.query(probe[None], QueryOptions()).exact


def test_a_gallery_that_has_outgrown_its_stage_gets_another(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    vectors = people(rng, 900, SHOTS)
    with opened(tmp_path) as gallery:
        gallery.enrol(enrolled(vectors[:1200]))
        staged(gallery)
        before = gallery._index._stage
        gallery.enrol(enrolled(vectors[1200:], 1200))
        until(lambda: gallery._index._stage is not before)
        assert gallery._index._stage is not None
        assert len(gallery._index._stage) == len(vectors)


def test_what_is_rearranged_while_it_is_built_is_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    with opened(tmp_path, "exact") as gallery:
        crops = enrolled(people(rng, 250, SHOTS))
        gallery.enrol(crops)
        builder = StageBuilder(gallery._index, Searching("exact"))
        builder.close()
        builder._closed = False
        train = FirstStage.trained

        def slow(kind: Kind, sample: NDArray[np.float32], count: int) -> FirstStage:
            for crop in crops[:500]:
                gallery.delete(crop.crop_id)
            return train(kind, sample, count)

        monkeypatch.setattr(stage.FirstStage, "trained", slow)
        assert not builder.build("ivf")
        assert not gallery._index.staged
        monkeypatch.setattr(stage.FirstStage, "trained", train)
        assert builder.build("ivf")
        assert gallery._index.staged


@pytest.mark.parametrize(("count", "expected"), [(0, 16), (1000, 32), (100_000, 256), (1_000_000, 1024), (10**9, 4096)])
def test_cells(count: int, expected: int) -> None:
    assert cells(count) == expected


def test_more_than_memory_holds_is_refused_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    with opened(tmp_path / "data") as gallery:
        gallery.enrol(enrolled(people(rng, 300, SHOTS)))
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "LIMIT", limit)
    limit.write_text("50000\n")
    for name in ("index.snapshot", None):
        with pytest.raises(GalleryUnavailable, match=r"1,800 crops take 0.* set RESIGHT_INDEX=compressed"):
            opened(tmp_path / "data")
        if name is not None:
            (tmp_path / "data" / name).unlink()
    with opened(tmp_path / "data", "compressed") as gallery:
        assert gallery.crop_count == 1800
    for free in ("max\n", "10000000000\n"):
        limit.write_text(free)
        opened(tmp_path / "data").close()
