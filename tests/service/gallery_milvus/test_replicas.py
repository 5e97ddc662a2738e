"""Services on one Milvus: what they see of each other, and what becomes of them when it goes away and comes back."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from service.settings import Settings
from tests.drawn_crops import crop, uploads
from tests.eventually import until
from tests.milvus_server import NEEDS_MILVUS, MilvusServer
from tests.serving import serve


@pytest.fixture
def replica(
    milvus: MilvusServer, make_settings: Callable[..., Settings], request: pytest.FixtureRequest
) -> Callable[..., Settings]:
    """Settings of a service on a gallery of this test in Milvus."""

    def make(**changes: Any) -> Settings:
        return make_settings(gallery=f"milvus://127.0.0.1:{milvus.port}/{request.node.name}", **changes)

    return make


pytestmark = [*NEEDS_MILVUS, pytest.mark.slow]
STALE_SECONDS = 10


def test_replicas_see_each_other(replica: Callable[..., Settings]) -> None:
    with serve(replica()) as one, serve(replica()) as other:
        for number in range(5):
            answer = one.client.post("/gallery", files=uploads(crop(number)), data={"identity": f"p{number}"})
            assert answer.status_code == 201
            crop_id = answer.json()["results"][0]["crop_id"]
            assert other.client.get(f"/gallery/{crop_id}", params={"consistency": "strong"}).status_code == 200
            strong = other.client.post("/query", files=uploads(crop(number)), data={"consistency": "strong"}).json()
            assert (strong["matches"][0]["identity"], strong["searched"]) == (f"p{number}", number + 1)
            listed = other.client.get("/identities", params={"consistency": "strong"}).json()["identities"]
            assert [known["identity"] for known in listed] == [f"p{n}" for n in range(number + 1)]
        before = time.monotonic()
        until(lambda: len(other.client.get("/gallery").json()["crops"]) == 5, STALE_SECONDS)
        assert time.monotonic() - before < STALE_SECONDS
        assert other.client.patch(f"/gallery/{crop_id}", json={"identity": "anna"}).json()["identity"] == "anna"
        assert one.client.get(f"/gallery/{crop_id}", params={"consistency": "strong"}).json()["identity"] == "anna"
        assert one.client.delete(f"/gallery/{crop_id}").status_code == 204
        gone = other.client.get(f"/gallery/{crop_id}", params={"consistency": "strong"})
        assert gone.json()["type"] == "/problems/unknown-crop"
        assert other.client.get("/identities/anna", params={"consistency": "strong"}).status_code == 404


def test_milvus_killed_in_the_middle_of_enrolment_loses_nothing_acknowledged(
    replica: Callable[..., Settings], milvus: MilvusServer
) -> None:
    with serve(replica()) as service:
        acknowledged: list[str] = []

        def enrol_until_refused() -> httpx.Response:
            while True:
                number = len(acknowledged)
                answer = service.client.post("/gallery", files=uploads(crop(number)), data={"identity": f"p{number}"})
                if answer.status_code != 201:
                    return answer
                acknowledged.append(answer.json()["results"][0]["crop_id"])

        with ThreadPoolExecutor(1) as pool:
            enrolling = pool.submit(enrol_until_refused)
            until(lambda: len(acknowledged) >= 20, 60)
            milvus.kill()
            began = time.monotonic()
            refused = enrolling.result(60)
        assert (refused.status_code, refused.json()["type"]) == (503, "/problems/not-ready")
        assert refused.headers["Retry-After"]
        assert time.monotonic() - began < 30
        assert service.client.post("/query", files=uploads(crop(0))).status_code == 503
        until(lambda: service.client.get("/readyz").status_code == 503, 30)
        assert "does not answer" in service.client.get("/readyz").json()["reasons"][0]
        assert service.client.get("/livez").status_code == 200
        milvus.start()
        until(lambda: service.client.get("/readyz").status_code == 200, 180)
        until(lambda: service.client.post("/gallery", files=uploads(crop(0))).status_code == 200, 180)
        for number, crop_id in enumerate(acknowledged):
            strong = {"consistency": "strong"}
            assert service.client.get(f"/gallery/{crop_id}", params=strong).json()["identity"] == f"p{number}"
            found = service.client.post("/query", files=uploads(crop(number)), data=strong).json()
            assert found["matches"][0]["crop_id"] == crop_id
            assert found["searched"] - len(acknowledged) in (0, 1)  # the one that was refused may be there
