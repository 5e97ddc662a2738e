"""The client and the real service."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service.client import Resight
from service.client.answers import ResightError, Unreachable
from service.client.calls import query_call
from tests.drawn_crops import crop, encoded, person
from tests.serving import Served


@pytest.fixture
def resight(service: Served) -> Iterator[Resight]:
    """The typed client of a running service with an empty gallery."""
    with Resight(service.url) as client:
        yield client


def test_enrolling_and_asking_the_real_service(resight: Resight, tmp_path: Path) -> None:
    path = tmp_path / "probe.png"
    path.write_bytes(crop(1, view=1))
    when = datetime(2026, 11, 1, 10, tzinfo=UTC)
    enrolled = resight.enrol([crop(1), crop(9)], camera="c1", items=[{"identity": "1"}, {"identity": "9"}])
    assert [(one.index, one.status, one.identity, one.camera) for one in enrolled.results] == [
        (0, "created", "1", "c1"),
        (1, "created", "9", "c1"),
    ]
    resight.enrol(person(1, view=2), identity="1", camera="c2", captured_at=when, track="t", meta={"source": "x"})

    ranking = resight.query(path, top_k=2, explain=True)
    assert ranking.verdict == "match"
    assert [match.identity for match in ranking.matches] == ["1", "9"]
    assert (ranking.searched, ranking.exact, ranking.model) == (3, True, enrolled.model)
    best = ranking.matches[0]
    assert best.distance == pytest.approx(1 - best.similarity)
    assert {hit.camera for hit in best.crops} == {"c1", "c2"}
    assert set(ranking.timings_ms) == {"parse", "decode", "queue", "inference", "search"}
    attention = ranking.attention
    assert attention is not None
    assert attention.weights.shape == (1, attention.h, attention.w)
    assert attention.weights.sum() == pytest.approx(1, abs=1e-5)

    narrowed = resight.query([path], exclude_cameras=["c1"], since=when, identity="1", max_distance=1)
    assert [(match.camera, match.captured_at) for match in narrowed.matches] == [("c2", when)]
    assert narrowed.attention is None


def test_crops_are_listed_fetched_and_deleted(resight: Resight) -> None:
    results = resight.enrol([crop(number) for number in range(5)], camera="c1").results
    resight.enrol(crop(6), identity="6", camera="c2", meta={"source": "six.png"})
    ids = [result.crop_id for result in results]
    assert [one.crop_id for one in resight.crops(cameras="c1", unidentified=True, page_size=2)] == ids
    [six] = resight.crops(identity="6")
    assert (six.meta, six.camera, six.captured_at) == ({"source": "six.png"}, "c2", None)
    assert six.enrolled_at.tzinfo is not None
    assert resight.crop(six.crop_id) == six
    resight.delete(six.crop_id)
    with pytest.raises(ResightError) as caught:
        resight.crop(six.crop_id)
    assert (caught.value.status, caught.value.problem.type) == (404, "/problems/unknown-crop")


def test_embeddings_are_unit_vectors_in_order(resight: Resight) -> None:
    embeddings = resight.embed([crop(1), crop(2), crop(1)])
    assert embeddings.dtype == np.float32
    assert embeddings.shape[0] == 3
    assert np.linalg.norm(embeddings, axis=1) == pytest.approx([1, 1, 1], abs=1e-5)
    assert np.array_equal(embeddings[0], embeddings[2])
    assert not np.allclose(embeddings[0], embeddings[1], atol=0.1)


def test_a_pillow_image_means_what_its_file_means(resight: Resight) -> None:
    embeddings = resight.embed([person(3), encoded(person(3), "PNG"), person(3).convert("P")])
    assert np.array_equal(embeddings[0], embeddings[1])
    assert embeddings[0] @ embeddings[2] > 0.99


def test_a_bad_image_fails_alone_or_refuses_all(resight: Resight) -> None:
    with pytest.raises(ResightError) as caught:
        resight.enrol([crop(1), b"no image"])
    assert (caught.value.status, caught.value.problem.index) == (422, 1)
    assert list(resight.crops()) == []
    good, bad = resight.enrol([crop(1), b"no image"], on_error="skip").results
    assert (good.status, good.problem) == ("created", None)
    assert (bad.status, bad.crop_id) == ("failed", None)
    assert bad.problem is not None
    assert (bad.problem.type, bad.problem.index) == ("/problems/not-an-image", 1)


def test_what_serves_and_whether_it_can(resight: Resight, service: Served) -> None:
    model = resight.model()
    assert (model.name, model.sha256) == (service.runtime.info.name, service.runtime.info.sha256)
    assert model.licence_notice == "Free to use; not trained on anybody."
    assert resight.ready().ready
    service.runtime.worker.stop()
    readiness = resight.ready()
    assert not readiness.ready
    assert readiness.reason is not None
    assert "inference thread" in readiness.reason


def test_a_picture_comes_as_it_is_kept(resight: Resight) -> None:
    [stored] = resight.enrol(crop(1)).results
    assert stored.crop_id is not None
    assert Image.open(io.BytesIO(resight.image(stored.crop_id))).format == "JPEG"
    with pytest.raises(ResightError) as caught:
        resight.image("00000000-0000-0000-0000-000000000000")
    assert caught.value.problem.type == "/problems/unknown-crop"


def test_attention_comes_as_a_picture(resight: Resight) -> None:
    [stored] = resight.enrol(crop(1)).results
    assert stored.crop_id is not None
    assert Image.open(io.BytesIO(resight.attention(stored.crop_id))).format == "PNG"


def test_every_read_can_ask_for_all_that_was_acknowledged(resight: Resight) -> None:
    [stored] = resight.enrol(crop(1), identity="1").results
    assert stored.crop_id is not None
    assert resight.query(crop(1), consistency="strong").searched == 1
    assert resight.crop(stored.crop_id, consistency="strong").identity == "1"
    assert resight.image(stored.crop_id, consistency="strong")
    assert resight.identity("1", consistency="strong").crops == 1
    assert len(list(resight.crops(consistency="strong"))) == 1
    assert len(list(resight.identities(consistency="strong"))) == 1


def test_crops_and_embeddings_ask_too(resight: Resight) -> None:
    first, second = resight.enrol([crop(1), crop(9)], items=[{"identity": "1"}, {"identity": "9"}]).results
    assert first.crop_id is not None
    assert second.crop_id is not None
    for ids in (second.crop_id, [second.crop_id, second.crop_id]):
        found = resight.query(crop_ids=ids, top_k=1, crops_per_identity=0, max_distance=0.5)
        assert [(match.identity, match.crops) for match in found.matches] == [("9", ())]
    [embedding], model = resight.embed(crop(1)), resight.model().sha256
    for vector in (embedding, embedding.tolist()):
        found = resight.query(embedding=vector, model_sha256=model, exclude_cameras=["c1"], exact=True)
        assert found.matches[0].identity == "1"
    with pytest.raises(ResightError) as caught:
        resight.query(embedding=embedding, model_sha256="0" * 64)
    assert caught.value.problem.type == "/problems/model-mismatch"


@pytest.mark.parametrize("probes", [{}, {"images": b"x", "crop_ids": "id"}, {"crop_ids": ["id"], "embedding": [1.0]}])
def test_a_query_has_one_kind_of_probe(probes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="either images"):
        query_call(**probes)


def test_no_proxy_stands_before_this_machine(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as nowhere:
        nowhere.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{nowhere.getsockname()[1]}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        with Resight(service.url, retries=0) as client:
            assert client.ready().ready
        with Resight("http://resight.test", retries=0) as other, pytest.raises(Unreachable):
            other.model()
