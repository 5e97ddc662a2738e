"""What the service says about itself: model, probes, documentation, headers and logs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import httpx
import pytest

from service.app import running
from service.settings import Settings, available_cores
from tests.drawn_crops import crop, uploads
from tests.serving import Served
from tests.tiny_model import DIM, METADATA


def test_the_model_describes_itself(service: Served) -> None:
    body = service.client.get("/model").json()
    for name in ("name", "architecture", "precision", "training_data", "licence_notice", "protocol", "distance"):
        assert body[name] == METADATA[name]
    assert (body["embedding_dim"], body["height"], body["width"]) == (DIM, 64, 32)
    assert body["sha256"] == service.runtime.info.sha256
    assert body["provider"] == "CPUExecutionProvider"
    assert body["metrics"] == {"mAP": 0.5}
    assert body["images_per_second"] == round(service.runtime.engine.images_per_second, 1) > 0
    assert body["match_distance_curve"] is True


def test_ready_says_what_is_ready(service: Served) -> None:
    service.client.post("/gallery", files=uploads(crop(1), crop(2)), data={"identity": "a"})
    answer = service.client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ready",
        "provider": "CPUExecutionProvider",
        "images_per_second": service.client.get("/model").json()["images_per_second"],
        "model": {"name": "tiny-colours", "sha256": service.runtime.info.sha256},
        "crops": 2,
        "identities": 1,
        "warnings": [],
    }
    assert service.client.get("/livez").json() == {"status": "alive"}


def test_a_browser_finds_the_documentation(client: httpx.Client) -> None:
    assert client.get("/").headers["content-type"].startswith("text/html")
    assert client.get("/docs").headers["content-type"].startswith("text/html")


def test_openapi_documents_every_route_with_its_problems(client: httpx.Client) -> None:
    described = client.get("/openapi.json").json()
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            errors = {status: one for status, one in operation["responses"].items() if int(status) >= 400}
            assert {"403", "422", "500"} <= set(errors), (method, path)
            for one in errors.values():
                assert list(one["content"]) == ["application/problem+json"], (method, path)
    form = described["paths"]["/gallery"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(form["properties"]) == {
        "images", "identity", "camera", "captured_at", "track", "meta", "items", "on_error",
    }  # fmt: skip
    assert "#/$defs" not in json.dumps(described)


def test_every_answer_carries_request_id_and_timings(client: httpx.Client) -> None:
    given = client.get("/livez", headers={"X-Request-Id": "my-id.7"})
    assert given.headers["X-Request-Id"] == "my-id.7"
    assert given.headers["Server-Timing"].startswith("total;dur=")
    made = client.get("/livez", headers={"X-Request-Id": "not {good}"})
    assert len(made.headers["X-Request-Id"]) == 32
    problem = client.get("/nowhere", headers={"X-Request-Id": "my-id.8"})
    assert problem.headers["X-Request-Id"] == problem.json()["instance"] == "my-id.8"
    timings = client.post("/embed", files=uploads(crop(1))).headers["Server-Timing"]
    assert [stage.partition(";")[0] for stage in timings.split(", ")] == [
        "parse",
        "decode",
        "queue",
        "inference",
        "total",
    ]


def test_the_start_is_logged_with_model_and_licence(
    capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    service: Served = request.getfixturevalue("service")
    service.client.get("/model", headers={"X-Request-Id": "seen-in-the-log"})
    request.getfixturevalue("client").get("/livez")  # answered after the line of the request before was written
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    (ready,) = [line for line in lines if line["message"] == "ready"]
    assert ready["model"] == "tiny-colours"
    assert ready["sha256"] == service.runtime.info.sha256
    assert ready["provider"] == "CPUExecutionProvider"
    assert ready["licence_notice"] == METADATA["licence_notice"]
    (request_line,) = [line for line in lines if line.get("request_id") == "seen-in-the-log"]
    assert (request_line["route"], request_line["status"], request_line["level"]) == ("/model", 200, "info")


def test_a_retention_that_somebody_has_to_run_is_a_warning(
    service: Served, make_settings: Callable[..., Settings]
) -> None:
    assert service.runtime.warnings()["upkeep"] is None
    in_milvus = make_settings(gallery="milvus://host/people", retention_days=30)
    warning = replace(service.runtime, settings=in_milvus).warnings()["upkeep"]
    assert warning is not None
    assert "`resight maintain` has to be run" in warning


@pytest.mark.parametrize("more", [0, 1])
def test_more_threads_than_cores_are_warned_of(
    make_settings: Callable[..., Settings], caplog: pytest.LogCaptureFixture, more: int
) -> None:
    caplog.set_level("WARNING", "service.app")
    threads = available_cores() + more
    with running(make_settings(threads=threads)):
        pass
    warned = [record.levelname for record in caplog.records if f"RESIGHT_THREADS={threads} is more" in record.message]
    assert warned == ["WARNING"] * more
