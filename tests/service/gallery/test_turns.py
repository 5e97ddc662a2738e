"""Many queries asked together take turns with writes, and with the queries that wait behind these."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.gallery import index as index_module
from service.gallery.index import Index
from service.gallery.records import Answer, Probe, QueryOptions
from tests.service.gallery.cases import new_crop, open_gallery, units, until
from tests.service.gallery.large import DIM, PEOPLE, SHOTS, enrolled, opened, people, staged


def test_a_write_comes_between_two_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = units(np.random.default_rng(1), 4)
    probe = Probe(vectors[:1], QueryOptions(exact=True))
    find = Index.find
    writes: list[threading.Thread] = []
    with open_gallery(tmp_path) as gallery:
        gallery.enrol([new_crop(n, vector) for n, vector in enumerate(vectors[:3])])

        def find_while_one_waits(index: Index, *rest: Any) -> Any:
            if not writes:
                writes.append(threading.Thread(target=gallery.enrol, args=([new_crop(3, vectors[3])],)))
                writes[0].start()
                until(lambda: index._lock._writers_waiting == 1)
            return find(index, *rest)

        monkeypatch.setattr(Index, "find", find_while_one_waits)
        monkeypatch.setattr(index_module, "MOST_COMPARED", 1)
        answers = gallery.query_all([probe, probe])
        writes[0].join()
    assert [answer.searched for answer in answers if isinstance(answer, Answer)] == [3, 4]


def test_exact_queries_beside_staged_ones_come_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.gallery.building.CHECK_SECONDS", 0.01)
    monkeypatch.setattr(index_module, "MOST_MULTIPLIED", 2 * PEOPLE * SHOTS * DIM)
    shots = people(np.random.default_rng(2), PEOPLE, SHOTS)
    find, together = Index.find, []
    with opened(tmp_path) as gallery:
        gallery.enrol(enrolled(shots))
        staged(gallery)

        def counted(index: Index, queries: Any, *rest: Any) -> Any:
            together.append(len(queries))
            return find(index, queries, *rest)

        monkeypatch.setattr(Index, "find", counted)
        for exact in (True, False):
            gallery.query_all([Probe(shot[None], QueryOptions(exact=exact)) for shot in shots[:5]])
    assert together == [2, 2, 1, 5]
