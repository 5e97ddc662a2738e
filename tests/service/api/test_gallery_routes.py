"""Enrolling, listing, looking at and deleting crops over HTTP."""

from __future__ import annotations

import hashlib
import io
import json
import uuid
from collections.abc import Callable

import httpx
import numpy as np
import pytest
from PIL import Image

from service.inference.images import decode_crop
from service.settings import Settings
from tests.drawn_crops import crop, uploads
from tests.serving import Served, serve
from tests.tiny_model import HEIGHT, WIDTH


def enrol(client: httpx.Client, *files: bytes, **fields: str) -> httpx.Response:
    return client.post("/gallery", files=uploads(*files), data=fields)


def test_enrolling_answers_every_image_in_order(service: Served) -> None:
    answer = enrol(service.client, crop(1), crop(2), crop(1), identity="0042", camera="c3")
    assert answer.status_code == 201
    body = answer.json()
    expected_id = str(uuid.UUID(bytes=hashlib.sha256(crop(1)).digest()[:16]))
    assert body["results"][0] == {
        "index": 0,
        "crop_id": expected_id,
        "identity": "0042",
        "camera": "c3",
        "status": "created",
    }
    assert [result["index"] for result in body["results"]] == [0, 1, 2]
    assert [result["status"] for result in body["results"]] == ["created", "created", "duplicate"]
    assert body["model"] == {"name": "tiny-colours", "sha256": service.runtime.info.sha256}
    assert service.runtime.gallery.crop_count == 2


def test_enrolling_again_is_a_duplicate_and_other_labels_an_update(client: httpx.Client) -> None:
    assert enrol(client, crop(1), identity="a").status_code == 201
    again = enrol(client, crop(1), identity="a")
    assert (again.status_code, again.json()["results"][0]["status"]) == (200, "duplicate")
    renamed = enrol(client, crop(1), identity="b", camera="c9").json()["results"][0]
    assert (renamed["status"], renamed["identity"], renamed["camera"]) == ("updated", "b", "c9")
    kept = enrol(client, crop(1), camera="c1").json()["results"][0]
    assert (kept["status"], kept["identity"], kept["camera"]) == ("updated", "b", "c1")


def test_known_bytes_are_not_embedded_again(service: Served) -> None:
    first = enrol(service.client, crop(1))
    assert "inference" in first.headers["Server-Timing"]
    again = enrol(service.client, crop(1), identity="a")
    assert again.json()["results"][0]["status"] == "updated"
    assert "inference" not in again.headers["Server-Timing"]


def test_items_win_over_shared_labels(client: httpx.Client) -> None:
    items = [
        {"identity": "b", "captured_at": "2026-05-01T14:00:00+02:00", "meta": {"zone": [1, "ü"]}},
        {"camera": "c9", "track": "t-1"},
        {},
    ]
    answer = enrol(client, crop(1), crop(2), crop(3), identity="a", camera="c1", items=json.dumps(items))
    assert [(r["identity"], r["camera"]) for r in answer.json()["results"]] == [("b", "c1"), ("a", "c9"), ("a", "c1")]
    first = client.get(f"/gallery/{answer.json()['results'][0]['crop_id']}").json()
    assert first["captured_at"] == "2026-05-01T12:00:00Z"
    assert first["meta"] == {"zone": [1, "ü"]}
    assert client.get(f"/gallery/{answer.json()['results'][1]['crop_id']}").json()["track"] == "t-1"


def test_every_label_of_the_form_is_kept(client: httpx.Client) -> None:
    labels = {"identity": "-1", "camera": "c.1:x_y", "captured_at": "2026-05-01T12:00:00.25Z", "track": "7"}
    answer = enrol(client, crop(1), **labels, meta='{"floor": 2}')
    stored = client.get(f"/gallery/{answer.json()['results'][0]['crop_id']}").json()
    assert stored["captured_at"].startswith("2026-05-01T12:00:00.25")
    assert {name: stored[name] for name in ("identity", "camera", "track")} == {
        name: labels[name] for name in ("identity", "camera", "track")
    }
    assert stored["meta"] == {"floor": 2}
    assert stored["enrolled_at"].endswith("Z")


@pytest.mark.parametrize(
    "meta",
    [
        {},
        {"deep": json.loads("[" * 31 + "]" * 31)},
        {"big": 10**300, "small": -1e-300, "text": "\0 😀 \u2028"},
        {"": None},
    ],
    ids=["empty", "deep", "numbers and text", "nothing"],
)
def test_meta_comes_back_as_it_was_given(client: httpx.Client, meta: dict[str, object]) -> None:
    crop_id = enrol(client, crop(1), meta=json.dumps(meta)).json()["results"][0]["crop_id"]
    assert client.get(f"/gallery/{crop_id}").json()["meta"] == meta


def test_skip_enrols_the_good_and_reports_the_bad(service: Served) -> None:
    items = [{"identity": "a"}, {"identity": "b"}, {"identity": "no good"}, {"identity": "d"}]
    answer = enrol(service.client, crop(1), b"no picture", crop(3), crop(4), items=json.dumps(items), on_error="skip")
    assert answer.status_code == 201
    results = answer.json()["results"]
    assert [result["status"] for result in results] == ["created", "failed", "failed", "created"]
    assert results[1]["problem"]["type"] == "/problems/not-an-image"
    assert results[2]["problem"]["type"] == "/problems/invalid-field"
    assert [results[1]["problem"]["index"], results[2]["problem"]["index"]] == [1, 2]
    assert service.runtime.gallery.crop_count == 2


def test_skip_with_nothing_good_is_200_and_writes_nothing(service: Served) -> None:
    answer = enrol(service.client, b"x", b"", b"x", on_error="skip")
    assert answer.status_code == 200
    kinds = [result["problem"]["type"].rpartition("/")[2] for result in answer.json()["results"]]
    assert kinds == ["not-an-image", "empty-image", "not-an-image"]
    assert service.runtime.gallery.crop_count == 0


def test_sixty_four_images_go_in_one_request(service: Served) -> None:
    answer = enrol(service.client, *(crop(number) for number in range(64)))
    assert answer.status_code == 201
    assert service.runtime.gallery.crop_count == 64


def test_the_gallery_is_listed_in_pages_and_filtered(client: httpx.Client) -> None:
    for number, camera in enumerate(["c1", "c2", "c3", "c1", "c2"]):
        identity = {} if number == 4 else {"identity": f"p{number % 2}"}
        enrol(client, crop(number), camera=camera, captured_at=f"2026-05-0{number + 1}T00:00:00Z", **identity)

    def cameras(query: str) -> list[str]:
        return [found["camera"] for found in client.get(f"/gallery?{query}").json()["crops"]]

    assert cameras("") == ["c1", "c2", "c3", "c1", "c2"]
    assert cameras("camera=c1&camera=c3") == ["c1", "c3", "c1"]
    assert cameras("exclude_camera=c1&exclude_camera=c2") == ["c3"]
    assert cameras("identity=p1") == ["c2", "c1"]
    assert cameras("since=2026-05-02T00:00:00Z&until=2026-05-04T00:00:00Z") == ["c2", "c3"]
    assert cameras("unidentified=true") == ["c2"]
    assert cameras("camera=nobody") == []

    seen: list[str] = []
    cursor: str | None = None
    for _ in range(3):
        page = client.get("/gallery", params={"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
        seen += [found["crop_id"] for found in page["crops"]]
        cursor = page["next_cursor"]
    assert cursor is None
    assert len(set(seen)) == len(seen) == 5


def test_a_crop_can_be_deleted_once(client: httpx.Client) -> None:
    crop_id = enrol(client, crop(1)).json()["results"][0]["crop_id"]
    assert client.get(f"/gallery/{crop_id.upper()}").json()["crop_id"] == crop_id
    deleted = client.delete(f"/gallery/{crop_id}")
    assert (deleted.status_code, deleted.content) == (204, b"")
    for gone in (client.delete(f"/gallery/{crop_id}"), client.get(f"/gallery/{crop_id}")):
        assert (gone.status_code, gone.json()["type"]) == (404, "/problems/unknown-crop")
    assert enrol(client, crop(1)).json()["results"][0]["status"] == "created"


def test_the_image_is_what_the_model_saw(client: httpx.Client) -> None:
    crop_id = enrol(client, crop(1)).json()["results"][0]["crop_id"]
    answer = client.get(f"/gallery/{crop_id}/image")
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["x-content-type-options"] == "nosniff"
    picture = np.asarray(Image.open(io.BytesIO(answer.content)), int)
    assert np.abs(picture - decode_crop(crop(1), HEIGHT, WIDTH)).mean() < 4


def test_no_picture_is_kept_where_none_is_wanted(make_settings: Callable[..., Settings]) -> None:
    with serve(make_settings(store_images="none")) as served:
        crop_id = enrol(served.client, crop(1)).json()["results"][0]["crop_id"]
        answer = served.client.get(f"/gallery/{crop_id}/image")
    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/no-stored-image")


def test_a_restart_finds_the_crops_again(make_settings: Callable[..., Settings]) -> None:
    settings = make_settings()
    with serve(settings) as served:
        enrol(served.client, crop(1), identity="0042", camera="c3")
        enrol(served.client, crop(2), identity="0043", camera="c3")
    with serve(settings) as served:
        answer = served.client.post("/query", files=uploads(crop(1, view=1)), data={"top_k": "1"}).json()
        assert answer["matches"][0]["identity"] == "0042"
        assert answer["searched"] == 2
        assert enrol(served.client, crop(1), identity="0042").json()["results"][0]["status"] == "duplicate"


def test_a_crop_deleted_between_look_up_and_enrolment_is_embedded_after_all(
    service: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    crop_id = enrol(service.client, crop(1)).json()["results"][0]["crop_id"]
    gallery = service.runtime.gallery
    looked_up = gallery.known

    def known_and_deleted(ids: list[str]) -> set[str]:
        found = looked_up(ids)
        gallery.delete(crop_id)
        return found

    monkeypatch.setattr(gallery, "known", known_and_deleted)
    answer = enrol(service.client, crop(1), identity="a")
    assert (answer.status_code, answer.json()["results"][0]["status"]) == (201, "created")
