"""When the inside fails: one bad image, a dead thread, a full queue, a bug, a start that must not be."""

from __future__ import annotations

import base64
import http.client
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from service.app import start
from service.inference.engine import EngineError, Inference
from service.inference.model import ModelError
from service.settings import Settings
from tests.drawn_crops import crop, encoded, uploads
from tests.engine_doubles import FaultyEngine
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


def test_a_dead_inference_thread_makes_the_service_unready(service: Served) -> None:
    service.client.post("/gallery", files=uploads(crop(1)), data={"identity": "a"})
    service.runtime.worker.engine = FaultyEngine(service.runtime.info, die)
    expect(service.client.post("/query", files=uploads(crop(2))), "not-ready")
    body = expect(service.client.get("/readyz"), "not-ready")
    assert "out of device" in body["reasons"][0]
    assert service.client.get("/livez").status_code == 200
    refused = service.client.post("/gallery", files=uploads(crop(3)))
    expect(refused, "not-ready")
    assert refused.headers["Retry-After"]
    assert len(service.client.get("/gallery").json()["crops"]) == 1


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


def until(condition: Callable[[], bool]) -> None:
    """Waits for what another thread is about to bring about."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


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
    def bug(*_: object) -> None:
        raise RuntimeError("secret path /etc/resight")

    monkeypatch.setattr(service.runtime.gallery, "page", bug)
    answer = service.client.get("/gallery")
    expect(answer, "internal-error")
    assert "secret" not in answer.text


def test_a_gallery_of_another_model_does_not_open(make_settings: Callable[..., Settings], tmp_path: Path) -> None:
    with serve(make_settings()) as served:
        served.client.post("/gallery", files=uploads(crop(1)))
    other = write_tiny_model(tmp_path / "other.onnx", {"name": "another"})
    with pytest.raises(Exception, match="model"):
        start(make_settings(model=other))


def test_what_must_not_serve_does_not_start(make_settings: Callable[..., Settings], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="RESIGHT_MODEL"):
        start(make_settings(model=tmp_path / "none.onnx"))
    wrong = base64.b64encode(np.full(DIM, DIM**-0.5, "<f4").tobytes()).decode()
    with pytest.raises(EngineError, match="Self-test"):
        start(make_settings(model=write_tiny_model(tmp_path / "wrong.onnx", {"test_embedding": wrong})))
