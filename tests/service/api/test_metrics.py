"""What Prometheus is told, and what neither it nor the log is."""

from __future__ import annotations

import json
from collections.abc import Callable

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.settings import Settings
from tests.drawn_crops import crop, uploads
from tests.eventually import until
from tests.serving import Served, serve

Values = dict[tuple[str, ...], float]


def scraped(client: httpx.Client) -> Values:
    """Every sample by its name and the values of its labels, in the order of the labels' names."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    samples = [sample for family in text_string_to_metric_families(answer.text) for sample in family.samples]
    values = {(one.name, *(value for _, value in sorted(one.labels.items()))): one.value for one in samples}
    assert len(values) == len(samples)  # nothing is said twice
    return values


def test_requests_are_counted_by_route_and_status(client: httpx.Client) -> None:
    client.post("/gallery", files=uploads(crop(1), crop(2)), data={"identity": "a"})
    for _ in range(3):
        client.post("/query", files=uploads(crop(1)))
    client.post("/query", files=uploads(b"no picture"))
    client.get("/identities/a")
    client.get("/no/such/page")
    client.request("PUT", "/gallery")
    values = scraped(client)
    assert {key[1:]: value for key, value in _of(values, "resight_requests_total")} == {
        ("POST", "/gallery", "201"): 1,
        ("POST", "/query", "200"): 3,
        ("POST", "/query", "422"): 1,
        ("GET", "/identities/{identity}", "200"): 1,
        ("GET", "other", "404"): 1,
        ("PUT", "other", "405"): 1,
    }
    problems = {key[1]: value for key, value in _of(values, "resight_problems_total")}
    assert problems == {"not-an-image": 1, "not-found": 1, "method-not-allowed": 1}
    assert values["resight_request_seconds_count", "/query"] == 4


def _of(values: Values, name: str) -> list[tuple[tuple[str, ...], float]]:
    return [(key, value) for key, value in values.items() if key[0] == name]


def test_stages_batches_gallery_and_model_are_told(service: Served) -> None:
    service.client.post("/gallery", files=uploads(*map(crop, range(5))), data={"identity": "a"})
    service.client.post("/query", files=uploads(crop(7)))
    values = scraped(service.client)
    stages = {key[1]: value for key, value in _of(values, "resight_stage_seconds_count")}
    assert stages == {"parse": 2, "decode": 2, "queue": 2, "inference": 2, "search": 1, "commit": 1}
    assert all(value >= 0 for _, value in _of(values, "resight_stage_seconds_sum"))
    assert values["resight_batch_images_sum",] == 6
    assert values["resight_batch_images_bucket", "1.0"] >= 1
    assert values["resight_batch_images_bucket", "+Inf"] == values["resight_batch_images_count",]
    assert values["resight_gallery_crops",] == 5
    assert values["resight_gallery_identities",] == 1
    assert values["resight_index_lag_writes",] == 0
    assert values["resight_queue_images",] == values["resight_admitted_images",] == values["resight_upload_bytes",] == 0
    assert values["resight_queue_limit_images",] == service.runtime.worker.queue_limit
    assert values["resight_model_info", "tiny-colours", "CPUExecutionProvider", service.runtime.info.sha256] == 1
    assert values["resight_ready",] == 1
    assert values["process_resident_memory_bytes",] > 2**20
    assert values["process_open_fds",] > 3
    assert values["resight_disk_free_bytes",] > 2**20
    assert values["resight_engine_images_per_second",] == service.runtime.engine.images_per_second


def test_what_is_wrong_is_told_by_part(service: Served) -> None:
    values = scraped(service.client)
    assert _of(values, "resight_trouble") == [(("resight_trouble", part), 0) for part in ("engine", "gallery")]
    abouts = ("keys", "retention", "upkeep", "disk", "model")
    assert _of(values, "resight_warning") == [(("resight_warning", about), 0) for about in abouts]
    model = service.runtime.settings.model
    model.rename(model.with_suffix(".moved"))
    try:
        assert scraped(service.client)["resight_warning", "model"] == 1
    finally:
        model.with_suffix(".moved").rename(model)
    service.runtime.gallery.close()
    values = scraped(service.client)
    assert values["resight_ready",] == 0
    assert (values["resight_trouble", "engine"], values["resight_trouble", "gallery"]) == (0, 1)


def test_what_a_client_chooses_makes_no_new_series(client: httpx.Client) -> None:
    for number in range(5):
        client.request("PROPFIND", f"/path/{number}")
        client.get(f"/identities/nobody{number}", headers={"X-Request-Id": f"id{number}"})
    assert dict(_of(scraped(client), "resight_requests_total")) == {
        ("resight_requests_total", "other", "other", "404"): 5,
        ("resight_requests_total", "GET", "/identities/{identity}", "404"): 5,
    }


def test_two_services_count_apart(make_settings: Callable[..., Settings]) -> None:
    for _ in range(2):
        with serve(make_settings()) as service:
            service.client.get("/model")
            assert scraped(service.client)["resight_requests_total", "GET", "/model", "200"] == 1


def test_no_name_is_in_log_or_metrics(service: Served, capsys: pytest.CaptureFixture[str]) -> None:
    client, name = service.client, "secretname"
    labels = {"identity": name, "camera": f"{name}.camera", "meta": json.dumps({"who": name})}
    crop_id = client.post("/gallery", files=uploads(crop(1)), data=labels).json()["results"][0]["crop_id"]
    client.post("/query", files=uploads(crop(1)), data={"identity": name})
    client.post("/query", files=uploads(crop(1)), data={"identity": f"{name}/"})
    client.get("/gallery", params={"identity": name})
    client.patch(f"/gallery/{crop_id}", json={"not_identity": f"{name}2"})
    client.get(f"/identities/{name}")
    client.get(f"/identity/{name}")  # no such page
    client.patch(f"/identities/{name}", json={"identity": f"{name}3"})
    client.post("/erasures", json={"identity": f"{name}3"})
    metrics = client.get("/metrics").text
    written = ""

    def all_logged() -> bool:
        nonlocal written
        written += capsys.readouterr().err
        return written.count('"message": "request"') >= 9

    until(all_logged)
    assert name not in written
    assert name not in metrics
