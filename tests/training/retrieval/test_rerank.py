"""Sparse re-ranking against the dense form, written down as Zhong et al. describe it and their code computes it."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

from training.retrieval.metrics import LabelledPair, rank_metrics_of_distances
from training.retrieval.rerank import PAPER, Reciprocal, reranked_distances


def dense(query: NDArray[np.float32], gallery: NDArray[np.float32], settings: Reciprocal) -> NDArray[np.float64]:
    """Final distances [Q, G] with every matrix written out."""
    k1, k2, share = settings.k1, settings.k2, settings.original
    pictures = np.concatenate([query, gallery])
    pictures = pictures / np.linalg.norm(pictures, axis=1, keepdims=True)
    squared = np.maximum(2 - 2 * pictures @ pictures.T, 0)
    original = (squared / np.maximum(squared.max(axis=0), np.finfo(np.float32).tiny)).T
    order = np.argsort(original, axis=1, kind="stable")
    count = len(pictures)

    def reciprocal(k: int) -> list[set[int]]:
        near = [set(row[: k + 1].tolist()) for row in order]
        return [{other for other in near[picture] if picture in near[other]} for picture in range(count)]

    described = np.zeros((count, count))
    cores = reciprocal(int(np.around(k1 / 2)))
    for picture, members in enumerate(reciprocal(k1)):
        expanded = set(members)
        for member in members:
            core = cores[member]
            if len(core & members) > 2 / 3 * len(core):
                expanded |= core
        weights = {member: np.exp(-original[picture, member]) for member in expanded}
        whole = sum(weights.values())
        for member, weight in weights.items():
            described[picture, member] = weight / whole
    if k2 != 1:
        described = np.stack([described[order[picture, :k2]].mean(axis=0) for picture in range(count)])
    final = np.empty((len(query), len(gallery)))
    for i in range(len(query)):
        for j in range(len(gallery)):
            a, b = described[i], described[len(query) + j]
            jaccard = 1 - np.minimum(a, b).sum() / (2 - np.minimum(a, b).sum())
            final[i, j] = (1 - share) * jaccard + share * original[i, len(query) + j]
    return final


def people(random: Generator, count: int, dim: int = 12) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Embeddings in clusters, and which cluster each is of."""
    identities = random.integers(0, 8, count)
    centres = default_rng(99).standard_normal((8, dim))
    return (centres[identities] + 0.8 * random.standard_normal((count, dim))).astype(np.float32), identities


SETTINGS = [
    PAPER,
    Reciprocal(k1=5, k2=3, original=0.0),
    Reciprocal(k1=7, k2=1, original=0.85),
    Reciprocal(k1=1, k2=1, original=0.3),
    Reciprocal(k1=2, k2=9, original=0.5),  # more are averaged than are looked through
    Reciprocal(k1=500, k2=6, original=0.3),  # more than there are
    Reciprocal(k1=500, k2=400, original=1.0),
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("sizes", [(9, 60), (30, 25), (1, 5), (1, 1)], ids=str)
def test_equals_the_dense_form(settings: Reciprocal, sizes: tuple[int, int]) -> None:
    random = default_rng(sizes)
    query, gallery = (people(random, count)[0] for count in sizes)
    found = np.stack(list(reranked_distances(query, gallery, settings)))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, dense(query, gallery, settings), rtol=0, atol=1e-5)


@pytest.mark.parametrize("settings", SETTINGS[:5], ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_equals_the_dense_form_where_distances_tie(settings: Reciprocal, seed: int) -> None:
    # Signs have exact cosines, and with 6 of them there are many twins.
    random = default_rng(seed)
    query, gallery = (random.choice(np.array([-1, 1], np.float32), (count, 16)) for count in (8, 50))
    query[:, 4:], gallery[:, 4:] = 1, 1
    found = np.stack(list(reranked_distances(query, gallery, settings)))
    np.testing.assert_allclose(found, dense(query, gallery, settings), rtol=0, atol=1e-5)


def test_pictures_that_are_all_the_same_are_all_as_near() -> None:
    same = np.ones((40, 4), np.float32)
    found = np.stack(list(reranked_distances(same[:5], same[5:])))
    np.testing.assert_allclose(found, dense(same[:5], same[5:], PAPER), rtol=0, atol=1e-5)


def test_lengths_do_not_matter() -> None:
    random = default_rng(3)
    query, gallery = people(random, 6)[0], people(random, 30)[0]
    longer = gallery * random.choice(np.array([0.5, 2, 8], np.float32), (30, 1))
    found = np.stack(list(reranked_distances(4 * query, longer)))
    np.testing.assert_allclose(found, np.stack(list(reranked_distances(query, gallery))), rtol=0, atol=1e-5)


def test_small_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    random = default_rng(4)
    query, gallery = people(random, 12)[0], people(random, 50)[0]
    whole = np.stack(list(reranked_distances(query, gallery)))
    monkeypatch.setattr("training.retrieval.rerank.CHUNK_BYTES", 1)
    np.testing.assert_allclose(np.stack(list(reranked_distances(query, gallery))), whole, rtol=0, atol=1e-6)


def test_people_are_found_better() -> None:
    random = default_rng(5)
    (query, asked), (gallery, answers) = people(random, 40), people(random, 400)
    labels = LabelledPair.of(asked + 1, [1] * 40, answers + 1, [2] * 400)
    unit = gallery / np.linalg.norm(gallery, axis=1, keepdims=True)
    before = rank_metrics_of_distances(-(query @ unit.T), labels)
    after = rank_metrics_of_distances(reranked_distances(query, gallery), labels)
    assert after.mAP > before.mAP + 0.02


def test_no_matrix_of_all_pairs_is_held() -> None:
    random = default_rng(6)
    query, gallery = random.standard_normal((50, 4), np.float32), random.standard_normal((2500, 4), np.float32)
    rows = reranked_distances(query, gallery, Reciprocal(k1=4, k2=2))
    tracemalloc.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.retrieval.rerank.CHUNK_BYTES", 2**20)
        count = sum(1 for _ in rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 50
    assert peak < 8 * 2**20  # all pairs in float32 are 25 MiB


def test_every_step_is_heard_of() -> None:
    heard: list[int] = []
    random = default_rng(7)
    list(reranked_distances(people(random, 5)[0], people(random, 20)[0], advance=heard.append))
    assert sum(heard) == 2 * 5 + 20


@pytest.mark.parametrize("wrong", [{"k1": 0}, {"k2": 0}, {"original": 1.5}, {"original": float("nan")}])
def test_numbers_that_mean_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="re-ranking needs k1 and k2"):
        Reciprocal(**wrong)  # type: ignore[arg-type]


def test_useless_embeddings_are_refused_before_anything_is_computed() -> None:
    with pytest.raises(ValueError, match="gallery: embedding 1 is zero"):
        reranked_distances(np.ones((1, 2), np.float32), np.array([[1, 0], [0, 0]], np.float32))
    with pytest.raises(ValueError, match=r"\[Q, D\] and \[G, D\]"):
        reranked_distances(np.ones((1, 2), np.float32), np.ones((2, 3), np.float32))
