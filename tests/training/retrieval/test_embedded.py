"""Embeddings in files, and averaged to multi-queries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.data.dataset import DataError, Sample
from training.loop.files import NotWritten
from training.retrieval.embedded import Embedded, multi_query_embeddings


def rows(count: int, dim: int = 4) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.random.default_rng(count).standard_normal((count, dim), np.float32)


def picture(name: str, identity: int, camera: int) -> Sample:
    return Sample(name, identity, camera, 0, bytes)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    Embedded(rows(2), rows(5), rows(3)).save(tmp_path / "new")
    found = Embedded.load(tmp_path / "new", 2, 5, 3)
    for a, b in ((found.query, rows(2)), (found.gallery, rows(5)), (found.multi_query, rows(3))):
        np.testing.assert_array_equal(a, b)
    assert Embedded.load(tmp_path / "new", 2, 5, None).multi_query is None
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"query.npy", "gallery.npy", "multi_query.npy"}


def test_another_models_multi_queries_do_not_stay(tmp_path: Path) -> None:
    Embedded(rows(2), rows(5), rows(3)).save(tmp_path)
    Embedded(rows(2), rows(5)).save(tmp_path)
    with pytest.raises(DataError, match=r"multi_query\.npy is no readable"):
        Embedded.load(tmp_path, 2, 5, 3)


def test_embeddings_of_two_models_are_refused(tmp_path: Path) -> None:
    Embedded(rows(2, 4), rows(5, 8)).save(tmp_path)
    with pytest.raises(DataError, match=r"embeddings of \[4, 8\] values"):
        Embedded.load(tmp_path, 2, 5, None)


def test_half_precision_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "query.npy", rows(2).astype(np.float16))
    np.save(tmp_path / "gallery.npy", rows(5))
    assert Embedded.load(tmp_path, 2, 5, None).query.dtype == np.float32


def test_a_multi_query_is_a_mean_of_length_one() -> None:
    queries = [picture("a", 1, 1), picture("b", 1, 2), picture("c", 1, 1)]
    pictures = [picture("d", 1, 1), picture("e", 1, 2), picture("f", 1, 1), picture("g", 2, 1)]
    axes = np.eye(4, dtype=np.float32)
    found = multi_query_embeddings(queries, pictures, axes)
    both = (axes[0] + axes[2]) / np.sqrt(2)
    np.testing.assert_allclose(found, np.stack([both, axes[1], both]), atol=1e-6)


def test_a_query_without_pictures_is_named() -> None:
    pictures = [picture("d", 1, 1), picture("e", 1, 1)]
    opposite = np.array([[1, 0], [-1, 0]], np.float32)
    with pytest.raises(DataError, match="no picture shows the person of 0001_c2"):
        multi_query_embeddings([picture("0001_c2", 1, 2)], pictures, opposite)
    with pytest.raises(DataError, match="person of 0001_c1 have no mean direction"):
        multi_query_embeddings([picture("0001_c1", 1, 1)], pictures, opposite)


def test_a_full_disk_names_the_file_and_takes_no_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Embedded(rows(2), rows(5)).save(tmp_path)

    def full(file: Any, arr: Any) -> None:
        file.write(b"half")
        raise OSError(f"{arr.nbytes} requested and 4 written")  # as NumPy says it

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(NotWritten, match=r"query\.npy could not be written .*the earlier one is as it was"):
        Embedded(rows(2), rows(5)).save(tmp_path)
    assert len(Embedded.load(tmp_path, 2, 5, None).query) == 2
