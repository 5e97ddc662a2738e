"""Asking who somebody is, and embedding without a gallery."""

from __future__ import annotations

import io
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from service.inference.images import decode_crop
from tests.drawn_crops import crop, uploads
from tests.serving import Served
from tests.tiny_model import DIM, HEIGHT, MAP_HEIGHT, MAP_WIDTH, POSITIONS, WIDTH


def ask(client: httpx.Client, *files: bytes, **options: Any) -> dict[str, Any]:
    answer = client.post("/query", files=uploads(*files), data=options)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def embedding_of(client: httpx.Client, data: bytes) -> NDArray[np.float64]:
    return np.array(client.post("/embed", files=uploads(data)).json()["embeddings"][0])


@pytest.fixture
def people(service: Served) -> Served:
    """Four identities in two cameras each, and one crop without identity."""
    for number in range(4):
        for view, camera in enumerate(["c1", "c2"]):
            labels = {"identity": f"p{number}", "camera": camera, "captured_at": f"2026-05-01T0{number}:00:00Z"}
            service.client.post("/gallery", files=uploads(crop(number, view)), data=labels)
    service.client.post("/gallery", files=uploads(crop(20)), data={"camera": "c3"})
    return service


def test_the_answer_has_the_documented_shape(people: Served) -> None:
    body = ask(people.client, crop(2, 2), top_k=2, crops_per_identity=1)
    assert set(body) == {"verdict", "match_distance", "matches", "searched", "exact", "model", "timings_ms"}
    assert set(body["timings_ms"]) == {"parse", "decode", "queue", "inference", "search"}
    assert (body["searched"], body["exact"]) == (9, True)
    best = body["matches"][0]
    assert set(best) == {
        "rank",
        "identity",
        "distance",
        "similarity",
        "crop_id",
        "camera",
        "captured_at",
        "support",
        "crops",
    }
    assert (best["rank"], best["identity"], best["captured_at"]) == (1, "p2", "2026-05-01T02:00:00Z")
    assert best["similarity"] == pytest.approx(1 - best["distance"])
    assert best["crops"] == [
        {name: best[name] for name in ("crop_id", "camera", "captured_at", "distance")},
    ]
    assert len(body["matches"]) == 2


def test_distances_are_half_the_euclidean_distance_of_embeddings(people: Served) -> None:
    probe = embedding_of(people.client, crop(1, 2))
    stored = [embedding_of(people.client, crop(1, view)) for view in (0, 1)]
    expected = min(np.linalg.norm(probe - one) / 2 for one in stored)
    best = ask(people.client, crop(1, 2))["matches"][0]
    assert best["distance"] == pytest.approx(expected, abs=2e-3)  # stored as float16
    assert best["support"] == 2


def test_the_verdict_knows_the_stranger(people: Served) -> None:
    assert ask(people.client, crop(2, 0))["verdict"] == "match"
    assert ask(people.client, crop(45))["verdict"] == "unknown"
    nobody = ask(people.client, crop(2, 0), camera="nobody")
    assert (nobody["verdict"], nobody["matches"], nobody["searched"]) == ("unknown", [], 0)


def test_an_empty_gallery_says_so(client: httpx.Client) -> None:
    body = ask(client, crop(1))
    assert (body["verdict"], body["matches"], body["searched"]) == ("empty_gallery", [], 0)


def test_filters_and_limits_reach_the_search(people: Served) -> None:
    def identities(**options: Any) -> list[str | None]:
        return [match["identity"] for match in ask(people.client, crop(2, 0), **options)["matches"]]

    assert identities(top_k=1) == ["p2"]
    assert set(identities()) == {"p0", "p1", "p2", "p3", None}
    assert identities(identity="p3") == ["p3"]
    assert identities(max_distance=0.05) == ["p2"]
    assert identities(camera=["c3"]) == [None]
    assert None not in identities(exclude_camera=["c3"])
    assert identities(since="2026-05-01T03:00:00Z") == ["p3"]
    assert ask(people.client, crop(2, 0), camera=["c1", "c3"], exact="true")["searched"] == 5
    assert ask(people.client, crop(2, 0), crops_per_identity=0)["matches"][0]["crops"] == []


def test_several_images_are_one_query(people: Served) -> None:
    shots = [embedding_of(people.client, crop(3, view)) for view in (0, 2)]
    mean = np.mean(shots, axis=0)
    mean /= np.linalg.norm(mean)
    stored = [embedding_of(people.client, crop(3, view)) for view in (0, 1)]
    expected = min(np.linalg.norm(mean - one) / 2 for one in stored)
    best = ask(people.client, crop(3, 0), crop(3, 2))["matches"][0]
    assert best["identity"] == "p3"
    assert best["distance"] == pytest.approx(expected, abs=2e-3)


def test_explain_adds_the_attention_received_by_each_position(people: Served) -> None:
    body = ask(people.client, crop(2), crop(2, 1), explain="true")
    attention = body["attention"]
    assert (attention["h"], attention["w"]) == (MAP_HEIGHT, MAP_WIDTH)
    crops = np.stack([decode_crop(crop(2, view), HEIGHT, WIDTH) for view in (0, 1)])
    for received, picture in zip(attention["weights"], crops, strict=True):
        cells = picture.reshape(MAP_HEIGHT, HEIGHT // MAP_HEIGHT, MAP_WIDTH, WIDTH // MAP_WIDTH, 3)
        colours = cells.mean(axis=(1, 3)).reshape(POSITIONS, 3) / 255
        weights = np.exp(colours @ colours.T)
        weights /= weights.sum(axis=1, keepdims=True)
        assert received == pytest.approx(weights.mean(axis=0), abs=1e-4)
        assert sum(received) == pytest.approx(1, abs=1e-4)


def test_an_embedding_asks_like_its_picture(people: Served) -> None:
    by_picture = ask(people.client, crop(1, 2))
    vector = embedding_of(people.client, crop(1, 2)) * 1e200  # any length will do
    body = {"embedding": vector.tolist(), "model_sha256": people.runtime.info.sha256, "camera": ["c1", "c2"]}
    answer = people.client.post("/query", json=body)
    assert answer.status_code == 200
    nearest = answer.json()["matches"][0]
    assert nearest["crop_id"] == by_picture["matches"][0]["crop_id"]
    assert nearest["distance"] == pytest.approx(by_picture["matches"][0]["distance"], abs=1e-3)
    assert set(answer.json()["timings_ms"]) == {"search"}


def test_crops_of_the_gallery_ask_for_themselves(people: Served) -> None:
    listed = people.client.get("/gallery", params={"identity": "p1"}).json()["crops"]
    ids = [found["crop_id"].upper() for found in listed]
    answer = people.client.post("/query", json={"crop_ids": ids, "top_k": 1, "exclude_camera": "c3"})
    assert answer.status_code == 200
    assert answer.json()["matches"][0]["identity"] == "p1"


def test_embeddings_are_unit_vectors_in_order(client: httpx.Client) -> None:
    answer = client.post("/embed", files=uploads(crop(1), crop(2), crop(1)))
    vectors = np.array(answer.json()["embeddings"])
    assert vectors.shape == (3, DIM)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    assert np.allclose(vectors[0], vectors[2], atol=1e-6)
    assert not np.allclose(vectors[0], vectors[1], atol=1e-2)


def test_embeddings_come_as_npy_on_request(service: Served) -> None:
    files = uploads(crop(1), crop(2))
    answer = service.client.post("/embed", files=files, headers={"Accept": "application/x-npy"})
    assert answer.headers["content-type"] == "application/x-npy"
    assert answer.headers["x-model-sha256"] == service.runtime.info.sha256
    vectors = np.load(io.BytesIO(answer.content), allow_pickle=False)
    assert (vectors.dtype, vectors.shape) == (np.float32, (2, DIM))
    assert np.allclose(vectors, service.client.post("/embed", files=files).json()["embeddings"], atol=1e-6)
