"""What people decide about crops and identities, against plain dictionaries."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from service.gallery.erasures import Selection
from service.gallery.gallery import Gallery
from service.gallery.identities import Correction, Identity, Renamed
from service.gallery.records import (
    Crop,
    Filters,
    InvalidCursor,
    Labels,
    NewCrop,
    QueryOptions,
    UnknownCrop,
    UnknownIdentity,
)
from tests.service.gallery.cases import START, crop_id, new_crop, open_gallery, rank_by_loops, units
from tests.service.gallery.conftest import Opening

VECTORS = units(np.random.default_rng(7), 40)
ALL = QueryOptions(top_k=1000, crops_per_identity=1000)


def enrol(gallery: Gallery, *names: str | None) -> None:
    """Crops 0, 1, … with these identities."""
    gallery.enrol([new_crop(n, VECTORS[n], Labels(name)) for n, name in enumerate(names)])


def against(*names: str) -> Correction:
    return Correction(not_identity=frozenset(names))


def named(identity: str | None) -> Correction:
    return Correction(Labels(identity), frozenset({"identity"}))


def listed(gallery: Gallery, limit: int = 1000) -> list[Identity]:
    """All identities, page by page."""
    found: list[Identity] = []
    cursor = None
    while True:
        page = gallery.identities.page(limit, cursor)
        assert len(page.identities) == limit or page.next_cursor is None
        assert page.identities or not found  # a last page that is just full is known to be the last
        found += page.identities
        cursor = page.next_cursor
        if cursor is None:
            return found


def test_labels_given_replace_and_none_clears(opening: Opening) -> None:
    labels = Labels("anna", "c1", START, "t1", {"floor": 2})
    later = START + timedelta(hours=1)
    with opening() as gallery:
        gallery.enrol([new_crop(0, VECTORS[0], labels)])
        before = gallery.get(crop_id(0))
        correction = Correction(Labels(camera="c2", captured_at=later), frozenset({"camera", "captured_at", "meta"}))
        after = gallery.identities.correct(crop_id(0), correction)
        assert after == replace(before, camera="c2", captured_at=later, meta=None) == gallery.get(crop_id(0))
        assert gallery.identities.correct(crop_id(0), correction) == after
        (match,) = gallery.query(VECTORS[:1], QueryOptions(filters=Filters(cameras=frozenset({"c2"})))).matches
        assert (match.crop.camera, match.crop.captured_at) == ("c2", later)
    with opening() as gallery:
        assert gallery.get(crop_id(0)) == after
        with pytest.raises(UnknownCrop):
            gallery.identities.correct(crop_id(1), correction)


def test_marks_add_up_until_a_person_takes_them_back(opening: Opening) -> None:
    with opening() as gallery:
        enrol(gallery, None)
        assert gallery.identities.correct(crop_id(0), against("b", "a")).not_identity == ("a", "b")
        assert gallery.identities.correct(crop_id(0), against("a", "c")).not_identity == ("a", "b", "c")
        one = gallery.identities.correct(crop_id(0), named("b"))
        assert (one.identity, one.not_identity) == ("b", ("a", "c"))
    with opening() as gallery:
        assert gallery.get(crop_id(0)).not_identity == ("a", "c")
        assert gallery.page(Filters(), 1, None).crops[0].not_identity == ("a", "c")
        one = gallery.identities.correct(crop_id(0), Correction(not_identity=None))
        assert (one.identity, one.not_identity) == ("b", ())


def test_a_mark_against_its_own_identity_takes_that_away(opening: Opening) -> None:
    with opening() as gallery:
        enrol(gallery, "anna", "anna")
        one = gallery.identities.correct(crop_id(0), against("anna"))
        assert (one.identity, one.not_identity) == (None, ("anna",))
        matches = gallery.query(VECTORS[:1], QueryOptions()).matches
        assert [match.identity for match in matches] == [None, "anna"]
        with pytest.raises(ValueError, match="the same"):
            Correction(Labels("bea"), frozenset({"identity"}), frozenset({"anna", "bea"}))


def test_enrolling_never_gives_an_identity_that_a_person_ruled_out(opening: Opening) -> None:
    with opening() as gallery:
        enrol(gallery, "anna", None)
        for number in (0, 1):
            gallery.identities.correct(crop_id(number), against("bea"))
        again = [new_crop(n, vector, Labels("bea", "c9")) for n, vector in enumerate(VECTORS[:2])]
        for answers in (gallery.enrol(again), gallery.enrol([replace(item, embedding=None) for item in again])):
            assert [(one.identity, one.camera) for one in answers] == [("anna", "c9"), (None, "c9")]
        assert [one.status for one in answers] == ["duplicate", "duplicate"]
        gallery.enrol([new_crop(1, None, Labels("cleo"))])
        assert gallery.get(crop_id(1)).identity == "cleo"
        assert [known.identity for known in listed(gallery)] == ["anna", "cleo"]


def test_what_one_of_the_crops_rules_out_is_ruled_out(opening: Opening) -> None:
    with opening() as gallery:
        enrol(gallery, None, None, None, "anna", "bea", "cleo")
        gallery.identities.correct(crop_id(0), against("anna"))
        gallery.identities.correct(crop_id(1), against("anna", "bea"))
        ruled_out = gallery.identities.ruled_out([crop_id(0), crop_id(1), crop_id(2), crop_id(99)])
        assert ruled_out == {"anna", "bea"}
        answer = gallery.query(VECTORS[:1], QueryOptions(filters=Filters(exclude_identities=ruled_out)))
        assert {match.identity for match in answer.matches} == {None, "cleo"}
        assert answer.searched == 4
        assert gallery.identities.ruled_out([crop_id(2)]) == gallery.identities.ruled_out([]) == frozenset()


def test_renaming_takes_crops_and_marks_along(opening: Opening) -> None:
    with opening() as gallery:
        enrol(gallery, "anna", "bea", "anna", None)
        gallery.identities.correct(crop_id(3), against("anna"))
        assert gallery.identities.rename("anna", "zoe") == Renamed("zoe", 2, merged=False)
        assert gallery.get(crop_id(3)).not_identity == ("zoe",)
        assert gallery.identity_count == 2
        with pytest.raises(UnknownIdentity):
            gallery.identities.rename("anna", "zoe")
        assert gallery.identities.rename("zoe", "zoe") == Renamed("zoe", 0, merged=False)
        names = [match.identity for match in gallery.query(VECTORS[2:3], QueryOptions()).matches]
        assert names[0] == "zoe"
        assert set(names) == {None, "bea", "zoe"}


def test_merging_takes_back_the_marks_that_say_the_contrary(opening: Opening) -> None:
    with opening() as gallery:
        enrol(gallery, "anna", "bea", None, "cleo")
        gallery.identities.correct(crop_id(0), against("bea", "cleo"))
        gallery.identities.correct(crop_id(1), against("anna"))
        gallery.identities.correct(crop_id(2), against("anna", "bea"))
        assert gallery.identities.rename("anna", "bea") == Renamed("bea", 1, merged=True)
        assert [gallery.get(crop_id(n)).not_identity for n in range(4)] == [("cleo",), (), ("bea",), ()]
        assert [(known.identity, known.crops) for known in listed(gallery)] == [("bea", 2), ("cleo", 1)]
        assert gallery.identity_count == 2


@pytest.mark.parametrize("table", ["crops", "not_identity", "changes"])
def test_a_renaming_that_fails_changes_nothing(tmp_path: Path, table: str) -> None:
    with open_gallery(tmp_path) as gallery:
        enrol(gallery, "anna", "anna", "bea")
        gallery.identities.correct(crop_id(2), against("anna"))
        event = "INSERT" if table == "changes" else "UPDATE"
        breaks = f"CREATE TRIGGER broken AFTER {event} ON {table} BEGIN SELECT RAISE (ABORT, 'broken'); END"
        gallery._store.database.write(lambda connection: connection.execute(breaks))
        with pytest.raises(sqlite3.IntegrityError, match="broken"):
            gallery.identities.rename("anna", "bea")
        assert [gallery.get(crop_id(n)).identity for n in range(3)] == ["anna", "anna", "bea"]
        assert gallery.get(crop_id(2)).not_identity == ("anna",)
        assert gallery.identity_count == 2
        gallery._store.database.write(lambda connection: connection.execute("DROP TRIGGER broken"))
        assert gallery.identities.rename("anna", "bea").moved == 2


def test_an_identity_says_what_its_crops_say(opening: Opening) -> None:
    times = [START + timedelta(microseconds=n) for n in range(3)]
    with opening() as gallery:
        labels = [
            Labels("anna", "c2", times[2]),
            Labels("anna", None, times[0]),
            Labels("anna", "c1", times[1]),
            Labels("anna", "c2"),
            Labels(None, "c7", START - timedelta(days=1)),
            Labels("bea"),
        ]
        numbers = [5, 4, 3, 2, 1, 0]  # the ids are not in the order of enrolment
        gallery.enrol([new_crop(number, VECTORS[number], one) for number, one in zip(numbers, labels, strict=True)])
        anna = Identity("anna", 4, ("c1", "c2"), times[0], times[2], crop_id(5))
        assert gallery.identities.get("anna") == anna
        assert listed(gallery) == [anna, Identity("bea", 1, (), None, None, crop_id(0))]
        gallery.delete(crop_id(5))
        assert gallery.identities.get("anna") == replace(anna, crops=3, last_captured_at=times[1], crop_id=crop_id(4))
        gallery.delete(crop_id(0))
        with pytest.raises(UnknownIdentity):
            gallery.identities.get("bea")


def test_pages_of_identities_stand_while_the_gallery_changes(opening: Opening) -> None:
    with opening() as gallery:
        enrol(gallery, "b", "d", "f", "h", "-1", ".")
        first = gallery.identities.page(3, None)
        assert [known.identity for known in first.identities] == ["-1", ".", "b"]
        gallery.erasures.erase(Selection(identity="b"))  # the one that the cursor stands on
        gallery.identities.rename("f", "a")
        gallery.identities.rename("d", "e")
        rest = gallery.identities.page(3, first.next_cursor)
        assert [known.identity for known in rest.identities] == ["e", "h"]
        assert rest.next_cursor is None
        assert len(listed(gallery, 1)) == len(listed(gallery, 5)) == 5


@pytest.mark.parametrize("cursor", ["", "1", "é", "MTox", "aTph=", "aTrDqQ=", "A" * 200])
def test_foreign_cursors_are_refused(opening: Opening, cursor: str) -> None:
    with opening() as gallery, pytest.raises(InvalidCursor):
        gallery.identities.page(10, cursor)


def test_the_cursor_of_one_list_is_none_of_another(opening: Opening) -> None:
    with opening() as gallery:
        enrol(gallery, "a", "b")
        with pytest.raises(InvalidCursor):
            gallery.identities.page(1, gallery.page(Filters(), 1, None).next_cursor)
        with pytest.raises(InvalidCursor):
            gallery.page(Filters(), 1, gallery.identities.page(1, None).next_cursor)
        with pytest.raises(ValueError, match="at least 1"):
            gallery.identities.page(0, None)


class Oracle:
    """The gallery in dictionaries: labels and marks by crop."""

    def __init__(self) -> None:
        self.labels: dict[str, Labels] = {}
        self.marks: dict[str, set[str]] = {}

    def name(self, crop: str, identity: str | None) -> None:
        self.labels[crop] = replace(self.labels[crop], identity=identity)
        self.marks[crop].discard(str(identity))

    def of(self, identity: str) -> list[str]:
        return [crop for crop, labels in self.labels.items() if labels.identity == identity]

    def enrol(self, crop: str, identity: str | None, camera: str | None) -> None:
        old, marks = self.labels.setdefault(crop, Labels()), self.marks.setdefault(crop, set())
        if identity is None or identity in marks:
            identity = old.identity
        self.labels[crop] = Labels(identity, camera or old.camera)

    def mark(self, crop: str, identity: str) -> None:
        if self.labels[crop].identity == identity:
            self.name(crop, None)
        self.marks[crop].add(identity)

    def rename(self, identity: str, new: str) -> None:
        for crop in self.of(identity):
            self.labels[crop] = replace(self.labels[crop], identity=new)
        for crop, marks in self.marks.items():
            if identity in marks:
                marks.remove(identity)
                marks.add(new)
            marks.discard(str(self.labels[crop].identity))

    def erase(self, crops: list[str]) -> None:
        for crop in crops:
            del self.labels[crop], self.marks[crop]


def step(gallery: Gallery, oracle: Oracle, rng: np.random.Generator) -> None:
    """Does something to both."""
    number = int(rng.integers(len(VECTORS)))
    crop = crop_id(number)
    one, other = (f"p{n}" for n in rng.integers(6, size=2))
    camera = None if rng.random() < 0.5 else f"c{rng.integers(3)}"
    known, action = crop in oracle.labels, int(rng.integers(10))
    if not known or action < 3:
        identity = None if rng.random() < 0.3 else one
        gallery.enrol([new_crop(number, VECTORS[number], Labels(identity, camera))])
        oracle.enrol(crop, identity, camera)
    elif action < 5:
        gallery.identities.correct(crop, against(one))
        oracle.mark(crop, one)
    elif action == 5:
        gallery.identities.correct(crop, named(one))
        oracle.name(crop, one)
    elif action == 6:
        gallery.identities.correct(crop, Correction(Labels(None), frozenset({"identity"}), None))
        oracle.labels[crop], oracle.marks[crop] = replace(oracle.labels[crop], identity=None), set()
    elif action == 7 and oracle.of(one) and one != other:
        moved, merged = len(oracle.of(one)), bool(oracle.of(other))
        assert gallery.identities.rename(one, other) == Renamed(other, moved, merged)
        oracle.rename(one, other)
    elif action == 8:
        assert gallery.erasures.erase(Selection(identity=one)).crops == len(oracle.of(one))
        oracle.erase(oracle.of(one))
        for marks in oracle.marks.values():
            marks.discard(one)
    elif action == 9:
        gallery.delete(crop)
        oracle.erase([crop])


def compare(gallery: Gallery, oracle: Oracle, rng: np.random.Generator) -> None:
    """Database, lists and index say what the oracle says."""
    crops: dict[str, Crop] = {crop.crop_id: crop for crop in gallery.page(Filters(), 1000, None).crops}
    assert {crop: (one.identity, one.camera) for crop, one in crops.items()} == {
        crop: (labels.identity, labels.camera) for crop, labels in oracle.labels.items()
    }
    assert {crop: set(one.not_identity) for crop, one in crops.items()} == oracle.marks
    names = sorted({labels.identity for labels in oracle.labels.values() if labels.identity})
    found = listed(gallery, int(rng.integers(1, 5)))
    assert [(known.identity, known.crops) for known in found] == [(name, len(oracle.of(name))) for name in names]
    assert gallery.identity_count == len(names)
    probe = VECTORS[int(rng.integers(len(VECTORS)))]
    enrolled = [NewCrop(crop, VECTORS[int(crop[-12:], 16)], None, labels) for crop, labels in oracle.labels.items()]
    expected = rank_by_loops(probe, enrolled, Filters())
    matches = gallery.query(probe[np.newaxis], ALL).matches
    assert [match.identity for match in matches] == [ranked.identity for ranked in expected]
    assert [[hit.crop.crop_id for hit in match.crops] for match in matches] == [
        [crop for _, crop in ranked.crops] for ranked in expected
    ]


@pytest.mark.parametrize("seed", range(3))
def test_any_sequence_of_decisions_agrees_with_dictionaries(opening: Opening, seed: int) -> None:
    rng = np.random.default_rng(seed)
    oracle = Oracle()
    for _ in range(3):  # with restarts between
        with opening() as gallery:
            compare(gallery, oracle, rng)
            for _ in range(60 if opening.quick else 10):
                step(gallery, oracle, rng)
                compare(gallery, oracle, rng)
