"""A gallery in a folder moves into Milvus, whole, however often it is stopped; and what keeps it in order there."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from service.gallery.audit import Act
from service.gallery.gallery import Gallery
from service.gallery.identities import Correction
from service.gallery.records import Filters, GalleryUnavailable, Labels, ModelMismatch, NewCrop, QueryOptions
from service.gallery.store import Model
from service.gallery_milvus.address import Address
from service.gallery_milvus.audit import StreamAudit
from service.gallery_milvus.crops import Crops, Stored
from service.gallery_milvus.gallery import MilvusGallery
from service.gallery_milvus.upkeep import expire, past_retention, put_names_right
from service.jobs.job import JobError
from service.jobs.migrate import migrate, model_of, require_room_for_pictures
from tests.milvus_server import NEEDS_MILVUS, MilvusServer
from tests.service.gallery.cases import MODEL, START, crop_id, new_crop, open_gallery, random_labels, units

pytestmark = NEEDS_MILVUS
COUNT = 1200
VECTORS = units(np.random.default_rng(3), COUNT)


@pytest.fixture
def there(milvus: MilvusServer, request: pytest.FixtureRequest) -> Callable[..., MilvusGallery]:
    """Opens the gallery of this test in Milvus."""

    def opened(model: str = MODEL, dim: int = 16) -> MilvusGallery:
        address = Address("127.0.0.1", milvus.port, request.node.name)
        return MilvusGallery.open(address, Model(model, f"model-{model[:1]}", dim))

    return opened


def fill(folder: Path) -> None:
    rng = np.random.default_rng(4)
    with open_gallery(folder) as gallery:
        numbers = rng.permutation(COUNT).tolist()
        gallery.enrol([new_crop(n, VECTORS[n], random_labels(rng, 30)) for n in numbers])
        gallery.enrol([new_crop(5, None, Labels(identity="anna", track="t", meta={"a": [1, None, "é"]}))])
        gallery.identities.correct(crop_id(6), Correction(not_identity=frozenset({"anna", "p1"})))


def everything(gallery: Gallery | MilvusGallery) -> list[object]:
    found: list[object] = []
    cursor = None
    while True:
        page = gallery.page(Filters(), 1000, cursor, strong=True)
        found += page.crops
        cursor = page.next_cursor
        if cursor is None:
            return found


def test_a_migration_moves_everything_and_goes_on_where_it_was_stopped(
    tmp_path: Path, there: Callable[..., MilvusGallery], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path)
    assert model_of(tmp_path) == Model(MODEL, "model-a", 16)
    write = Crops.write
    written: list[int] = []

    def stopped(self: Crops, stored: list[object]) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(len(stored))
        write(self, stored)  # type: ignore[arg-type]

    with pytest.raises(JobError, match="1,200 pictures"):
        require_room_for_pictures(tmp_path)
    with there() as target:
        with monkeypatch.context() as patch:
            patch.setattr(Crops, "write", stopped)
            with pytest.raises(KeyboardInterrupt):
                migrate(tmp_path, target, with_pictures=False)
        told: list[tuple[int, int]] = []
        done = migrate(tmp_path, target, with_pictures=False, progress=lambda *now: told.append(now))
        assert (done.written, done.known, done.damaged) == (COUNT - sum(written), sum(written), ())
        assert told[-1] == (COUNT, COUNT)
        assert done.contents.crops == COUNT
        again = migrate(tmp_path, target, with_pictures=False)
        assert (again.written, again.contents) == (0, done.contents)
        with open_gallery(tmp_path) as here:
            assert everything(target) == everything(here)
            options = QueryOptions(top_k=20, strong=True)
            for probe in units(np.random.default_rng(9), 20):
                expected, found = here.query(probe[None], options), target.query(probe[None], options)
                assert (found.matches, found.searched, found.verdict) == (expected.matches, COUNT, expected.verdict)
            assert target.identities.page(100, None, strong=True) == here.identities.page(100, None)
            here.enrol([new_crop(COUNT, VECTORS[0])])
        target.delete(crop_id(7))
        assert migrate(tmp_path, target, with_pictures=False).written == 2


def test_a_collection_in_use_stays_as_it_is(tmp_path: Path, there: Callable[..., MilvusGallery]) -> None:
    with open_gallery(tmp_path) as gallery:
        gallery.enrol([new_crop(n, VECTORS[n], Labels("anna")) for n in (1, 2)])
    with there() as target:
        target.enrol([new_crop(1, VECTORS[1], Labels("bert"))])
        target.enrol([new_crop(3, VECTORS[3])])
        before = everything(target)
        with pytest.raises(JobError, match=f"such as crop {crop_id(1)}: nothing was written"):
            migrate(tmp_path, target)
        assert everything(target) == before
        target.delete(crop_id(1))
        with pytest.raises(JobError, match=f"such as crop {crop_id(3)}: nothing was written"):
            migrate(tmp_path, target)
        target.delete(crop_id(3))
        assert migrate(tmp_path, target).contents.crops == 2


def test_what_is_enrolled_meanwhile_is_found_in_the_end(
    tmp_path: Path, there: Callable[..., MilvusGallery], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_gallery(tmp_path) as gallery:
        gallery.enrol([new_crop(1, VECTORS[1])])
    with there() as target:
        write = Crops.write

        def write_one_more(self: Crops, stored: list[Stored]) -> None:
            write(self, stored)
            write(self, [replace(one, crop=replace(one.crop, crop_id=crop_id(2))) for one in stored])

        monkeypatch.setattr(Crops, "write", write_one_more)
        with pytest.raises(JobError, match="does not hold what"):
            migrate(tmp_path, target)


def test_a_gallery_belongs_to_one_model(there: Callable[..., MilvusGallery]) -> None:
    there().close()
    with there("b" * 64, 8) as gallery:  # empty: it adopts the model
        gallery.enrol([new_crop(1, VECTORS[1, :8])])
    with pytest.raises(ModelMismatch, match=r"model-b .* model-a"):
        there()
    with there("b" * 64, 8) as gallery:
        gallery.delete(crop_id(1))
    with there() as gallery:
        gallery.enrol([new_crop(1, VECTORS[1])])


def test_upkeep_erases_what_is_old_and_puts_the_names_right(there: Callable[..., MilvusGallery]) -> None:
    log = io.StringIO()
    with there() as gallery, StreamAudit(gallery.collections.secret, log) as audit:
        old = datetime.now(UTC) - timedelta(days=40)
        aged = [NewCrop(crop_id(n), VECTORS[n], None, Labels(f"p{n}"), enrolled_at=old) for n in range(3)]
        gallery.enrol([*aged, new_crop(3, VECTORS[3], Labels("p3", captured_at=START))])
        limit = datetime.now(UTC) - timedelta(days=30)
        seen = past_retention(gallery.crops, limit)
        assert (seen.old, seen.crops, seen.too_many) == (3, 4, True)
        assert expire(gallery.crops, audit, limit) == 3
        (line,) = [json.loads(text) for text in log.getvalue().splitlines()]
        assert (line["action"], line["actor"], line["count"]) == ("expire", "retention", 3)
        assert line["ids"] == [audit.pseudonym(crop_id(n)) for n in range(3)]
        gallery.crops.list_names(["left-over"])
        gallery.crops.server.delete(gallery.collections.names, "identity", ["p3"])
        assert gallery.identities.page(10, None, strong=True).identities == ()
        names = put_names_right(gallery.crops)
        assert (names.added, names.removed) == (1, 1)
        assert [one.identity for one in gallery.identities.page(10, None, strong=True).identities] == ["p3"]


def test_a_log_that_cannot_be_written_stops_the_act() -> None:
    closed = io.StringIO()
    closed.close()
    audit = StreamAudit(bytes(32), closed)
    with pytest.raises(GalleryUnavailable, match="stdout"):
        audit.perform(Act("erase", "anna"), lambda: None)
