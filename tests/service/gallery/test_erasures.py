"""What was erased is gone: from answers, from rows, from the bytes of every file of the folder."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from service.gallery import database as database_module
from service.gallery import writer as writer_module
from service.gallery.database import DATABASE_NAME
from service.gallery.erasures import Selection
from service.gallery.folder import SNAPSHOT_NAME
from service.gallery.identities import Correction
from service.gallery.records import Filters, Labels, NewCrop, QueryOptions, UnknownCrop, UnknownIdentity
from tests.service.gallery.cases import START, crop_id, new_crop, open_gallery, units, until
from tests.service.gallery.conftest import Opening

COUNT, DIM = 2000, 256
ERASED = range(0, COUNT, 10)  # the crops of "secret-name"


def thumbnail(number: int) -> bytes:
    """Of the size of a real one now and then, so that it takes pages of its own."""
    return np.random.default_rng(number).bytes(6000 if number % 100 == 0 else 300)


def crops(vectors: NDArray[np.float32]) -> list[NewCrop]:
    def labels(number: int) -> Labels:
        secret = number in ERASED
        return Labels("other-name" if secret else f"p{number % 50}", f"c{number % 6}", START, None, {"of": number})

    return [NewCrop(crop_id(n), vector, thumbnail(n), labels(n)) for n, vector in enumerate(vectors)]


def traces(vectors: NDArray[np.float32], number: int) -> list[bytes]:
    """Bytes that only this crop has: its id, parts of its vector and of its picture."""
    blob, jpeg = vectors[number].astype("<f2").tobytes(), thumbnail(number)
    return [crop_id(number).encode(), blob[:16], blob[-16:], blob[200:216], jpeg[:16], jpeg[100:116], jpeg[-16:]]


def found_on_disk(folder: Path, searched: list[bytes]) -> list[bytes]:
    content = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    return [trace for trace in searched if trace in content]


def test_an_erased_identity_is_in_no_answer_and_no_file(tmp_path: Path) -> None:
    vectors = units(np.random.default_rng(1), COUNT, DIM)
    searched = [trace for n in ERASED for trace in traces(vectors, n)]
    kept = [trace for n in range(1, 20) if n not in ERASED for trace in traces(vectors, n)]
    with open_gallery(tmp_path, DIM) as gallery:
        for part in np.array_split(np.array(crops(vectors), object), 30):
            gallery.enrol(part.tolist())
        gallery.identities.rename("other-name", "secret-name")
        gallery.identities.correct(crop_id(1), Correction(not_identity=frozenset({"secret-name"})))
        assert found_on_disk(tmp_path, [*searched, b"secret-name"]) == [*searched, b"secret-name"]

        receipt = gallery.erasures.erase(Selection(identity="secret-name"))

        assert (receipt.crops, receipt.wal_truncated) == (len(ERASED), True)
        assert found_on_disk(tmp_path, [*searched, b"secret-name", b"other-name"]) == []
        assert found_on_disk(tmp_path, kept) == kept
        assert gallery.crop_count == COUNT - len(ERASED)
        answer = gallery.query(vectors[:1], QueryOptions(top_k=1000, crops_per_identity=1000))
        shown = {hit.crop.crop_id for match in answer.matches for hit in match.crops}
        assert shown == {crop_id(n) for n in range(COUNT) if n not in ERASED}
        listed = gallery.page(Filters(identities=frozenset({"secret-name"})), 10, None)
        assert (listed.crops, gallery.get(crop_id(1)).not_identity) == ((), ())
        with pytest.raises(UnknownIdentity):
            gallery.identities.get("secret-name")
        with pytest.raises(UnknownCrop):
            gallery.image(crop_id(0))
        again = gallery.erasures.erase(Selection(identity="secret-name"))
        assert (again.crops, again.receipt_id == receipt.receipt_id) == (0, False)
    assert found_on_disk(tmp_path, [*searched, b"secret-name", b"other-name"]) == []
    with open_gallery(tmp_path, DIM) as gallery:
        assert gallery.crop_count == COUNT - len(ERASED)


def test_crops_are_erased_by_their_ids(opening: Opening) -> None:
    vectors = units(np.random.default_rng(2), 5)
    with opening() as gallery:
        gallery.enrol([new_crop(n, v, Labels("anna")) for n, v in enumerate(vectors)])
        before = datetime.now(UTC)
        asked = Selection(crop_ids=frozenset({crop_id(0), crop_id(3), crop_id(77)}))
        receipt = gallery.erasures.erase(asked)
        assert (receipt.crops, receipt.asked) == (2, asked)
        assert before <= receipt.erased_at <= datetime.now(UTC)
        assert [crop.crop_id for crop in gallery.page(Filters(), 9, None).crops] == [crop_id(n) for n in (1, 2, 4)]
        assert gallery.identities.get("anna").crops == 3


def test_what_a_camera_saw_is_erased_with_its_end(opening: Opening) -> None:
    vectors = units(np.random.default_rng(3), 6)
    labels = [Labels(None, "c1", START + timedelta(seconds=n)) for n in range(3)]
    labels += [Labels(None, "c1"), Labels(None, "c2", START), Labels(None, None, START)]
    with opening() as gallery:
        gallery.enrol([new_crop(n, v, one) for n, (v, one) in enumerate(zip(vectors, labels, strict=True))])

        def left() -> list[str]:
            return [crop.crop_id for crop in gallery.page(Filters(), 10, None).crops]

        until_then = Selection(camera="c1", before=START + timedelta(seconds=2))
        assert gallery.erasures.erase(until_then).crops == 2
        assert left() == [crop_id(n) for n in (2, 3, 4, 5)]
        assert gallery.erasures.erase(Selection(camera="c1")).crops == 2
        assert left() == [crop_id(n) for n in (4, 5)]


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"identity": "a", "camera": "c"},
        {"identity": "a", "before": START},
        {"before": START},
        {"camera": "c", "before": START.replace(tzinfo=None)},
    ],
    ids=str,
)
def test_what_is_to_be_erased_is_said_once_and_clearly(asked: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"before|exactly one"):
        Selection(**asked)  # type: ignore[arg-type]


def test_an_erasure_of_nothing_costs_no_indexes_and_no_copies(tmp_path: Path) -> None:
    vectors = units(np.random.default_rng(6), 3)
    anna = Selection(identity="anna")
    statements: list[str] = []
    with open_gallery(tmp_path) as gallery:
        gallery.enrol([new_crop(n, v, Labels("bob")) for n, v in enumerate(vectors)])
        gallery.identities.correct(crop_id(0), Correction(not_identity=frozenset({"anna"})))
        gallery._store.database.write(lambda connection: connection.set_trace_callback(statements.append))

        def erase(asked: Selection) -> tuple[int, bool, bool]:
            """How many were erased; whether the snapshot is there yet, and whether indexes were written anew."""
            assert gallery._snapshots.write()
            statements.clear()
            receipt = gallery.erasures.erase(asked)
            assert receipt.wal_truncated
            copied = (tmp_path / SNAPSHOT_NAME).exists()
            return receipt.crops, copied, any(statement.startswith("REINDEX") for statement in statements)

        assert erase(anna) == (0, False, True)  # the mark names her
        for nothing in (anna, Selection(camera="c9"), Selection(crop_ids=frozenset({crop_id(9)}))):
            assert erase(nothing) == (0, True, False)
        assert erase(Selection(crop_ids=frozenset({crop_id(0)}))) == (1, False, True)


def test_an_erasure_that_fails_erases_nothing(tmp_path: Path) -> None:
    vectors = units(np.random.default_rng(4), 3)
    with open_gallery(tmp_path) as gallery:
        gallery.enrol([new_crop(n, v, Labels("anna")) for n, v in enumerate(vectors[:2])])
        gallery.enrol([new_crop(2, vectors[2])])
        gallery.identities.correct(crop_id(2), Correction(not_identity=frozenset({"anna"})))
        breaks = "CREATE TRIGGER broken BEFORE INSERT ON changes BEGIN SELECT RAISE (ABORT, 'broken'); END"
        gallery._store.database.write(lambda connection: connection.execute(breaks))
        with pytest.raises(sqlite3.IntegrityError, match="broken"):
            gallery.erasures.erase(Selection(identity="anna"))
        assert gallery.identities.get("anna").crops == 2
        assert gallery.get(crop_id(2)).not_identity == ("anna",)
        np.testing.assert_array_equal(gallery.embeddings([crop_id(0)])[0], vectors[0].astype(np.float16))
        assert len(gallery.query(vectors[:1], QueryOptions()).matches[0].crops) == 2


def test_a_receipt_says_when_a_reader_holds_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "BUSY_SECONDS", 0.01)
    monkeypatch.setattr(writer_module, "TRUNCATION_RETRY_SECONDS", 0.01)
    vectors = units(np.random.default_rng(5), 2)
    with open_gallery(tmp_path) as gallery:
        gallery.enrol([new_crop(n, v, Labels(f"name-{n}")) for n, v in enumerate(vectors)])
        with closing(sqlite3.connect(tmp_path / DATABASE_NAME)) as reader:
            reader.execute("BEGIN")
            assert reader.execute("SELECT count(*) FROM crops").fetchone() == (2,)
            receipt = gallery.erasures.erase(Selection(identity="name-0"))
            assert (receipt.crops, receipt.wal_truncated) == (1, False)
            assert gallery.crop_count == 1
            assert found_on_disk(tmp_path, [b"name-0"])
        until(lambda: not gallery._store.database.log_keeps_erased)
        assert not found_on_disk(tmp_path, [b"name-0"])
        assert gallery.erasures.erase(Selection(identity="name-1")).wal_truncated


def test_a_gallery_that_is_erased_as_a_whole_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    vectors = units(np.random.default_rng(3), 1100)
    with open_gallery(tmp_path) as gallery:
        gallery.enrol([new_crop(n, vector, Labels("everybody")) for n, vector in enumerate(vectors)])
        assert gallery.erasures.erase(Selection(identity="everybody")).crops == len(vectors)
        assert gallery.trouble is None
        assert gallery.query(vectors[:1], QueryOptions()).verdict == "empty_gallery"
    with open_gallery(tmp_path) as gallery:
        assert "is of no use" not in caplog.text  # of its snapshot
        gallery.enrol([new_crop(n, vector) for n, vector in enumerate(vectors[:3])])
        assert gallery.query(vectors[:1], QueryOptions()).searched == 3
