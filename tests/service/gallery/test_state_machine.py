"""Any order of enrolling, correcting, erasing, paging, querying and restarting, against a dictionary and plain loops.

STATE_MACHINE_STEPS sets how many steps are taken: 500 in the suite, always the same ones; other numbers draw anew.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from numpy.typing import NDArray

from service.gallery.erasures import Selection
from service.gallery.gallery import Gallery
from service.gallery.identities import Correction
from service.gallery.records import Crop, Filters, Labels, NewCrop, QueryOptions, UnknownCrop, UnknownIdentity
from tests.service.gallery.cases import START, crop_id, lattice, new_crop, open_gallery, passes, rank_by_loops

SUITE_STEPS = 500
STEPS = int(os.environ.get("STATE_MACHINE_STEPS", SUITE_STEPS))
STEPS_A_RUN = 50
CROPS = 24
# Fewer vectors than crops, on a lattice: equal distances abound, and float32 measures them exactly.
VECTORS = lattice(np.random.default_rng(5), 10)

numbers = st.integers(0, CROPS - 1)
names = st.sampled_from(["anna", "berta", "-1", "..", "carl"])
cameras = st.sampled_from(["c1", "c2", "c3"])
times = st.integers(0, 9).map(lambda second: START + timedelta(seconds=second))
labels = st.builds(
    Labels,
    identity=st.none() | names,
    camera=st.none() | cameras,
    captured_at=st.none() | times,
    track=st.none() | st.just("t"),
    meta=st.none() | st.sampled_from([{}, {"a": [1, None]}]),
)
filters = st.builds(
    Filters,
    cameras=st.frozensets(cameras, max_size=2),
    exclude_cameras=st.frozensets(cameras, max_size=1),
    identities=st.frozensets(names, max_size=2),
    since=st.none() | times,
    until=st.none() | times,
    unidentified=st.sampled_from([False, False, False, True]),
)


@dataclass
class Row:
    """What the oracle knows of a crop."""

    labels: Labels
    marks: set[str] = field(default_factory=set)


class GalleryMachine(RuleBasedStateMachine):
    """A gallery and the dictionary that it must agree with, in the order of enrolment."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.gallery: Gallery
        self.rows: dict[int, Row] = {}

    @initialize()
    def start(self) -> None:
        self.gallery = open_gallery(self.folder)

    def teardown(self) -> None:
        if hasattr(self, "gallery"):
            self.gallery.close()
        shutil.rmtree(self.folder)

    @rule(items=st.lists(st.tuples(numbers, labels), min_size=1, max_size=6))
    def enrol(self, items: list[tuple[int, Labels]]) -> None:
        expected = [self._enrol_one(number, given) for number, given in items]
        answers = self.gallery.enrol([new_crop(number, vector(number), given) for number, given in items])
        assert [answer.status for answer in answers] == [status for status, _ in expected]
        assert [(answer.identity, answer.camera) for answer in answers] == [
            (after.identity, after.camera) for _, after in expected
        ]

    def _enrol_one(self, number: int, given: Labels) -> tuple[str, Labels]:
        if number not in self.rows:
            self.rows[number] = Row(given)
            return "created", given
        row = self.rows[number]
        if given.identity in row.marks:
            given = replace(given, identity=None)
        merged = replace(row.labels, **{name: value for name, value in vars(given).items() if value is not None})
        status = "duplicate" if merged == row.labels else "updated"
        row.labels = merged
        return status, merged

    @rule(number=numbers, given=labels, stranger=numbers)
    def enrol_all_or_nothing(self, number: int, given: Labels, stranger: int) -> None:
        """A crop without embedding that is not enrolled refuses its whole request."""
        items = [new_crop(number, vector(number), given), new_crop(stranger, None, given)]
        if stranger not in self.rows and stranger != number:
            with pytest.raises(UnknownCrop):
                self.gallery.enrol(items)
        else:
            self.gallery.enrol(items)
            self._enrol_one(number, given)
            self._enrol_one(stranger, given)

    @rule(number=numbers)
    def delete(self, number: int) -> None:
        if self.rows.pop(number, None) is None:
            with pytest.raises(UnknownCrop):
                self.gallery.delete(crop_id(number))
        else:
            self.gallery.delete(crop_id(number))

    @rule(
        number=numbers,
        given=labels,
        which=st.frozensets(st.sampled_from(["identity", "camera", "captured_at", "meta"])),
        against=st.none() | st.frozensets(names, max_size=2),
    )
    def correct(self, number: int, given: Labels, which: frozenset[str], against: frozenset[str] | None) -> None:
        if "identity" in which and against:
            against -= {given.identity or ""}
        correction = Correction(given, which, against)
        if number not in self.rows:
            with pytest.raises(UnknownCrop):
                self.gallery.identities.correct(crop_id(number), correction)
            return
        row = self.rows[number]
        row.labels = replace(row.labels, **{name: getattr(given, name) for name in which})
        if row.labels.identity in (against or ()):
            row.labels = replace(row.labels, identity=None)
        row.marks = set() if against is None else (row.marks | against) - {row.labels.identity or ""}
        crop = self.gallery.identities.correct(crop_id(number), correction)
        assert (crop.identity, crop.camera, set(crop.not_identity)) == (
            row.labels.identity,
            row.labels.camera,
            row.marks,
        )

    @rule(old=names, new=names)
    def rename(self, old: str, new: str) -> None:
        mine = [row for row in self.rows.values() if row.labels.identity == old]
        if not mine:
            with pytest.raises(UnknownIdentity):
                self.gallery.identities.rename(old, new)
            return
        there = any(row.labels.identity == new for row in self.rows.values())
        renamed = self.gallery.identities.rename(old, new)
        if old == new:
            assert (renamed.moved, renamed.merged) == (0, False)
            return
        assert (renamed.moved, renamed.merged) == (len(mine), there)
        for row in mine:
            row.labels = replace(row.labels, identity=new)
        for row in self.rows.values():
            row.marks = {new if name == old else name for name in row.marks} - {row.labels.identity or ""}

    @rule(name=names)
    def erase(self, name: str) -> None:
        gone = [number for number, row in self.rows.items() if row.labels.identity == name]
        assert self.gallery.erasures.erase(Selection(identity=name)).crops == len(gone)
        for number in gone:
            del self.rows[number]
        for row in self.rows.values():
            row.marks.discard(name)

    @rule(wanted=filters, limit=st.integers(1, 9))
    def page(self, wanted: Filters, limit: int) -> None:
        found: list[Crop] = []
        cursor = None
        while True:
            page = self.gallery.page(wanted, limit, cursor)
            assert len(page.crops) == limit or page.next_cursor is None
            found += page.crops
            cursor = page.next_cursor
            if cursor is None:
                break
        expected = [(number, row) for number, row in self.rows.items() if passes(row.labels, wanted)]
        assert [crop.crop_id for crop in found] == [crop_id(number) for number, _ in expected]
        for crop, (_, row) in zip(found, expected, strict=True):
            assert Labels(crop.identity, crop.camera, crop.captured_at, crop.track, crop.meta) == row.labels
            assert set(crop.not_identity) == row.marks

    @rule(probe=st.integers(0, len(VECTORS) - 1), wanted=filters, top_k=st.integers(1, 8), shown=st.integers(0, 4))
    def query(self, probe: int, wanted: Filters, top_k: int, shown: int) -> None:
        crops = [NewCrop(crop_id(number), vector(number), None, row.labels) for number, row in self.rows.items()]
        expected = rank_by_loops(VECTORS[probe], crops, wanted)
        options = QueryOptions(top_k=top_k, crops_per_identity=shown, filters=wanted)
        answer = self.gallery.query(VECTORS[probe : probe + 1], options)
        assert [(match.identity, match.crop.crop_id) for match in answer.matches] == [
            (candidate.identity, candidate.crops[0][1]) for candidate in expected[:top_k]
        ]
        for match, candidate in zip(answer.matches, expected, strict=False):
            assert [hit.crop.crop_id for hit in match.crops] == [name for _, name in candidate.crops[:shown]]
            assert match.distance == pytest.approx(candidate.crops[0][0], abs=1e-6)
        assert answer.searched == sum(len(candidate.crops) for candidate in expected)

    @rule(number=numbers)
    def look_up(self, number: int) -> None:
        assert self.gallery.known([crop_id(number)]) == ({crop_id(number)} if number in self.rows else set())
        if number not in self.rows:
            with pytest.raises(UnknownCrop):
                self.gallery.get(crop_id(number))
            with pytest.raises(UnknownCrop):
                self.gallery.embeddings([crop_id(number)])
        else:
            stored = self.gallery.embeddings([crop_id(number)])[0]
            assert np.array_equal(stored, vector(number).astype(np.float16).astype(np.float32))
            assert self.gallery.image(crop_id(number)) == new_crop(number, None).thumbnail

    @rule()
    def restart(self) -> None:
        self.gallery.close()
        self.gallery = open_gallery(self.folder)

    @invariant()
    def counts_agree(self) -> None:
        assert self.gallery.crop_count == len(self.rows)
        assert self.gallery.identity_count == len({row.labels.identity for row in self.rows.values()} - {None})


def vector(number: int) -> NDArray[np.float32]:
    """The embedding of a crop, always the same one."""
    embedding: NDArray[np.float32] = VECTORS[number % len(VECTORS)]
    return embedding


def test_a_gallery_is_a_dictionary_that_ranks() -> None:
    run_state_machine_as_test(
        GalleryMachine,
        settings=settings(
            max_examples=max(1, STEPS // STEPS_A_RUN),
            stateful_step_count=STEPS_A_RUN,
            deadline=None,
            database=None,
            derandomize=STEPS == SUITE_STEPS,
            suppress_health_check=list(HealthCheck),
        ),
    )
