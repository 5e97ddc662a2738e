"""When the inside fails: one bad image, a dead thread, a full queue, a bug, a start that must not be."""

from __future__ import annotations

import asyncio
import base64
import http.client
import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from starlette.exceptions import HTTPException

from service.api.problems import Kind, problem_of, problem_response
from service.api.runtime import Pool
from service.app import running
from service.gallery import building
from service.gallery.gallery import Gallery
from service.gallery.records import (
    Answer,
    Crop,
    GalleryDamaged,
    GalleryError,
    GalleryFull,
    GalleryUnavailable,
    InvalidEmbedding,
    ModelMismatch,
    Probe,
)
from service.inference.batching import BatchWorker
from service.inference.engine import EngineError, Inference
from service.inference.model import ModelError
from service.settings import Settings
from tests.drawn_crops import crop, encoded, uploads
from tests.engine_doubles import FaultyEngine
from tests.eventually import until
from tests.raw_http import answer_of, head, opened
from tests.service.api.canonical_error import expect
from tests.serving import Served, serve
from tests.tiny_model import DIM, write_tiny_model

# The tiny model has no direction for a picture of one grey: its embedding is NaN.
NAN = encoded(Image.new("RGB", (32, 64), (128, 128, 128)))


@pytest.mark.parametrize("route", ["/gallery", "/query", "/embed"])
def test_an_image_without_embedding_is_an_error_and_never_enrolled(service: Served, route: str) -> None:
    expect(service.client.post(route, files=uploads(crop(1), NAN, crop(2))), "inference-failed", 1)
    assert service.runtime.gallery.crop_count == 0
    assert service.client.get("/readyz").status_code == 200


def test_skip_keeps_the_images_that_have_one(service: Served) -> None:
    answer = service.client.post("/gallery", files=uploads(NAN, crop(1), b"x", NAN), data={"on_error": "skip"})
    assert answer.status_code == 201
    results = answer.json()["results"]
    assert [result["status"] for result in results] == ["failed", "created", "failed", "failed"]
    assert [result.get("problem", {}).get("type") for result in results] == [
        "/problems/inference-failed",
        None,
        "/problems/not-an-image",
        "/problems/inference-failed",
    ]
    assert results[3]["problem"]["index"] == 3
    assert service.runtime.gallery.crop_count == 1


def die(crops: NDArray[np.uint8], inference: Inference) -> None:
    raise SystemExit("out of device")


def test_a_dead_engine_is_loaded_again_from_the_file(service: Served) -> None:
    service.client.post("/gallery", files=uploads(crop(1)), data={"identity": "a"})
    service.runtime.worker.engine = FaultyEngine(service.runtime.info, die)
    refused = service.client.post("/query", files=uploads(crop(2)))
    expect(refused, "not-ready")
    assert refused.headers["Retry-After"]
    until(lambda: service.client.get("/readyz").status_code == 200)
    assert service.client.get("/model").json()["provider"] == "CPUExecutionProvider"
    found = service.client.post("/query", files=uploads(crop(1))).json()
    assert found["matches"][0]["identity"] == "a"


def test_an_engine_whose_file_was_replaced_stays_dead_and_says_why(
    make_settings: Callable[..., Settings], model_path: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model.onnx"
    shutil.copy(model_path, model)
    with serve(make_settings(model=model)) as service:
        write_tiny_model(model, {"name": "another"})
        assert service.client.post("/embed", files=uploads(crop(1))).status_code == 200  # with what it has loaded
        assert service.client.get("/model").json()["file"] == "replaced"
        [warning] = service.client.get("/readyz").json()["warnings"]
        assert "is replaced; a restart" in warning
        service.runtime.worker.engine = FaultyEngine(service.runtime.info, die)
        expect(service.client.post("/embed", files=uploads(crop(1))), "not-ready")
        until(lambda: "another model by now" in str(service.client.get("/readyz").json()["reasons"]))


def test_pictures_that_cannot_be_embedded_do_not_stop_the_service(service: Served) -> None:
    for _ in range(3):
        expect(service.client.post("/embed", files=uploads(*[NAN] * 5)), "inference-failed", 0)
    assert service.runtime.worker.failures == 15
    assert service.client.get("/readyz").status_code == 200
    assert service.runtime.worker.renewals == 0


def test_a_dead_inference_thread_makes_the_service_unready(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise EngineError("The driver is gone.")

    monkeypatch.setattr("service.app.load_engine", gone)
    service.client.post("/gallery", files=uploads(crop(1)), data={"identity": "a"})
    service.runtime.worker.engine = FaultyEngine(service.runtime.info, die)
    expect(service.client.post("/query", files=uploads(crop(2))), "not-ready")
    until(lambda: "The driver is gone" in str(service.client.get("/readyz").json()))
    body = expect(service.client.get("/readyz"), "not-ready")
    assert "out of device" in body["reasons"][0]
    assert service.client.get("/livez").status_code == 200
    refused = service.client.post("/gallery", files=uploads(crop(3)))
    expect(refused, "not-ready")
    assert refused.headers["Retry-After"]
    assert len(service.client.get("/gallery").json()["crops"]) == 1


def test_a_gallery_in_trouble_makes_the_service_unready(service: Served) -> None:
    service.runtime.gallery.close()
    body = expect(service.client.get("/readyz"), "not-ready")
    assert body["reasons"] == ["the gallery is closed"]
    refused = service.client.post("/gallery", files=uploads(crop(1)))
    expect(refused, "not-ready")
    assert refused.headers["Retry-After"]


def test_a_full_queue_refuses_before_decoding_and_says_when_to_return(
    make_settings: Callable[..., Settings],
) -> None:
    with serve(make_settings(queue_limit=64)) as service, ThreadPoolExecutor() as pool:
        engine = FaultyEngine(service.runtime.info)
        engine.gate.clear()
        service.runtime.worker.engine = engine
        waiting = pool.submit(httpx.post, f"{service.url}/embed", files=uploads(*[crop(1)] * 60), timeout=30)
        assert engine.entered.wait(10)
        refused = service.client.post("/query", files=uploads(*[b"not even a picture"] * 5))
        expect(refused, "queue-full")
        assert int(refused.headers["Retry-After"]) >= 1
        engine.gate.set()
        assert waiting.result().status_code == 200
        assert service.client.post("/query", files=uploads(crop(1))).status_code == 200


def test_images_of_a_client_that_went_away_are_not_run(service: Served) -> None:
    engine = FaultyEngine(service.runtime.info)
    engine.gate.clear()
    service.runtime.worker.engine = engine
    with ThreadPoolExecutor() as pool:
        first = pool.submit(httpx.post, f"{service.url}/embed", files=uploads(crop(1)), timeout=30)
        assert engine.entered.wait(10)
        query = httpx.Request("POST", f"{service.url}/query", files=uploads(*[crop(2)] * 8))
        impatient = http.client.HTTPConnection(query.url.host, query.url.port)
        impatient.request("POST", "/query", query.read(), dict(query.headers))
        until(lambda: service.runtime.worker._admitted == 9)
        impatient.close()
        until(lambda: service.runtime.worker._admitted == 1)
        engine.gate.set()
        assert first.result().status_code == 200
    assert service.client.post("/embed", files=uploads(crop(3))).status_code == 200
    assert engine.batches == [1, 1]


def test_a_bug_is_a_problem_without_its_inside(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: object, **__: object) -> None:
        raise RuntimeError("secret path /etc/resight")

    monkeypatch.setattr(service.runtime.gallery, "page", bug)
    answer = service.client.get("/gallery")
    expect(answer, "internal-error")
    assert "secret" not in answer.text


def test_a_gallery_of_another_model_does_not_open(make_settings: Callable[..., Settings], tmp_path: Path) -> None:
    with serve(make_settings()) as served:
        served.client.post("/gallery", files=uploads(crop(1)))
    other = write_tiny_model(tmp_path / "other.onnx", {"name": "another"})
    with pytest.raises(ModelMismatch, match="made by the model tiny-colours"), running(make_settings(model=other)):
        pass


def test_what_must_not_serve_does_not_start(make_settings: Callable[..., Settings], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="RESIGHT_MODEL"), running(make_settings(model=tmp_path / "none.onnx")):
        pass
    wrong = base64.b64encode(np.full(DIM, DIM**-0.5, "<f4").tobytes()).decode()
    model = write_tiny_model(tmp_path / "wrong.onnx", {"test_embedding": wrong})
    with pytest.raises(EngineError, match="Self-test"), running(make_settings(model=model)):
        pass


def test_a_graph_on_a_gpu_needs_one(make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "why_no_card", lambda graph: "FAISS sees no GPU: look")
    with (
        pytest.raises(GalleryUnavailable, match="RESIGHT_INDEX=cagra searches on a GPU, and FAISS sees no GPU: look"),
        running(make_settings(index="cagra", device="auto")),
    ):
        pass
    with running(make_settings(device="auto")) as runtime:
        assert isinstance(runtime.gallery, Gallery)
        assert runtime.gallery.stage is None


def test_a_start_that_fails_half_way_leaves_nothing_open(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(BatchWorker, "start", full)
        with pytest.raises(RuntimeError, match="new thread"), running(make_settings()):
            pass
    with running(make_settings()) as runtime:  # the folder is free again
        assert runtime.gallery.alive
    assert not runtime.gallery.alive
    assert runtime.worker.trouble is not None


GALLERY_FAULTS: dict[str, tuple[GalleryError, str]] = {
    "a database that cannot be used now": (GalleryUnavailable("The disk is gone."), "not-ready"),
    "a full disk": (GalleryFull("The disk is full; free space, then send it again."), "storage-full"),
    "a damaged crop": (GalleryDamaged("The stored embedding of crop 1 is damaged; enrol it again."), "damaged-crop"),
    "what a running gallery never says": (ModelMismatch("Another model."), "internal-error"),
}


@pytest.mark.parametrize("name", GALLERY_FAULTS)
def test_what_the_gallery_says_of_itself(service: Served, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    error, slug = GALLERY_FAULTS[name]

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(service.runtime.gallery, "embeddings", fail)
    answer = service.client.post("/query", json={"crop_ids": ["00000000-0000-0000-0000-000000000000"]})
    body = expect(answer, slug)
    assert (body["detail"] == str(error)) == (slug != "internal-error")
    assert ("Retry-After" in answer.headers) == (slug == "not-ready")


def test_an_answer_that_breaks_its_own_model_is_our_fault(
    service: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Crop("id", 7, None, None, None, None, datetime.now(UTC))  # type: ignore[arg-type]
    monkeypatch.setattr(service.runtime.gallery, "get", lambda _, **__: broken)
    expect(service.client.get("/gallery/00000000-0000-0000-0000-000000000000"), "internal-error")
    assert "validation error" in capsys.readouterr().err


def test_what_starlette_refuses_keeps_its_status() -> None:
    problem = problem_of(HTTPException(416, "Out of range."))
    assert (problem.kind, problem_response(problem).status_code, problem.body()["status"]) == (
        Kind.REQUEST_REFUSED,
        416,
        416,
    )


def test_long_searches_hold_up_nothing_else(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    service.client.post("/gallery", files=uploads(crop(1)), data={"identity": "a"})
    gallery, gate, searching = service.runtime.gallery, threading.Event(), threading.Semaphore(0)
    search = gallery.query_all

    def slow(probes: Sequence[Probe]) -> Sequence[Answer | InvalidEmbedding | GalleryUnavailable]:
        searching.release()
        assert gate.wait(30)
        return search(probes)

    monkeypatch.setattr(gallery, "query_all", slow)
    with ThreadPoolExecutor(5) as pool:
        queries = [
            pool.submit(httpx.post, f"{service.url}/query", files=uploads(crop(1)), timeout=30) for _ in range(5)
        ]
        try:
            assert searching.acquire(timeout=10)  # the thread for searches is taken
            assert service.client.get("/livez").status_code == 200
            assert service.client.get("/readyz").json()["crops"] == 1
            enrolled = service.client.post("/gallery", files=uploads(crop(2)))
            assert enrolled.status_code == 201
            crop_id = enrolled.json()["results"][0]["crop_id"]
            assert service.client.get(f"/gallery/{crop_id}/image").status_code == 200
        finally:
            gate.set()
        assert [query.result().status_code for query in queries] == [200] * 5


def test_a_full_disk_refuses_enrolments_and_answers_queries(service: Served) -> None:
    assert service.client.post("/gallery", files=uploads(crop(1)), data={"identity": "a"}).status_code == 201
    database = service.gallery._store._database
    database.write(lambda connection: connection.execute("PRAGMA max_page_count = 1").fetchone())
    body = expect(service.client.post("/gallery", files=uploads(*map(crop, range(2, 66)))), "storage-full")
    assert "the disk is full; free space, then send it again" in body["detail"]
    assert service.client.get("/readyz").status_code == 200
    assert service.client.post("/query", files=uploads(crop(1))).json()["matches"][0]["identity"] == "a"
    database.write(lambda connection: connection.execute("PRAGMA max_page_count = 1000000").fetchone())
    assert service.client.post("/gallery", files=uploads(crop(2))).status_code == 201


def test_a_nearly_full_disk_refuses_enrolments_before_their_body(
    service: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert service.client.post("/gallery", files=uploads(crop(1)), data={"identity": "a"}).status_code == 201
    monkeypatch.setattr("service.gallery.space.LEAST_BYTES", 2**60)
    monkeypatch.setattr("service.gallery.space.LEAST_SHARE", 1.0)
    with opened(service.url) as client:
        client.sendall(head("/gallery", length=2**20))
        status, _, problem = answer_of(client)
    assert (status, problem["type"]) == (507, "/problems/storage-full")
    assert "nearly full" in problem["detail"]
    ready = service.client.get("/readyz")
    assert ready.status_code == 200
    assert "nearly full" in ready.json()["warnings"][0]
    assert service.client.post("/query", files=uploads(crop(1))).json()["matches"][0]["identity"] == "a"
    monkeypatch.undo()
    assert service.client.post("/gallery", files=uploads(crop(2))).status_code == 201


def test_a_thread_keeps_its_place_when_nobody_waits_for_it_any_more() -> None:
    gate, begun, called = threading.Event(), threading.Event(), []

    def first() -> None:
        begun.set()
        assert gate.wait(10)
        called.append("first")

    async def ask() -> None:
        pool = Pool(1, "test")
        working = asyncio.create_task(pool.run(first))
        await asyncio.to_thread(begun.wait, 10)
        given_up, patient = (asyncio.create_task(pool.run(called.append, name)) for name in ("given up", "patient"))
        await asyncio.sleep(0)
        working.cancel()
        given_up.cancel()
        await asyncio.wait({working, given_up})
        assert working.cancelled()
        assert given_up.cancelled()
        await asyncio.sleep(0.05)  # time for what must not happen
        assert called == []
        gate.set()
        await patient

    asyncio.run(ask())
    assert called == ["first", "patient"]
