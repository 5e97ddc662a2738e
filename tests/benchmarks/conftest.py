"""What a contender sets for its process, and a test for its own."""

from __future__ import annotations

from collections.abc import Iterator

import faiss
import pytest


@pytest.fixture(autouse=True)
def threads_put_back() -> Iterator[None]:
    """FAISS has as many threads after a test as before."""
    before = faiss.omp_get_max_threads()
    yield
    faiss.omp_set_num_threads(before)
