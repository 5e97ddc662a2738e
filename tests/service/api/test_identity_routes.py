"""Corrections, identities and erasures over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from service.app import create_app
from service.settings import Settings
from tests.drawn_crops import crop, uploads
from tests.service.api.canonical_error import expect
from tests.serving import Served, serve

NOBODY = "00000000-0000-0000-0000-000000000000"


def enrol(client: httpx.Client, *numbers: int, **labels: str) -> list[str]:
    """The ids of these drawn crops, enrolled now."""
    answer = client.post("/gallery", files=uploads(*map(crop, numbers)), data=labels)
    assert answer.status_code in (200, 201), answer.text
    return [result["crop_id"] for result in answer.json()["results"]]


def good(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()


def names(client: httpx.Client) -> dict[str, int]:
    """Every identity with its crops, page by page."""
    found: dict[str, int] = {}
    cursor: dict[str, str] = {}
    while True:
        page = good(client.get("/identities", params={"limit": "2", **cursor}))
        found |= {one["identity"]: one["crops"] for one in page["identities"]}
        if page["next_cursor"] is None:
            return found
        cursor = {"cursor": page["next_cursor"]}


def matched(client: httpx.Client, *crop_ids: str, **options: Any) -> list[str | None]:
    answer = good(client.post("/query", json={"crop_ids": list(crop_ids), **options}))
    return [match["identity"] for match in answer["matches"]]


def test_a_correction_answers_the_crop_as_it_is_then(client: httpx.Client) -> None:
    (crop_id,) = enrol(client, 1, identity="a", camera="c1", meta='{"floor": 2}')
    was = good(client.get(f"/gallery/{crop_id}"))
    given = {"identity": "b", "captured_at": "2026-05-01T14:00:00+02:00", "meta": None, "not_identity": "a"}
    becomes = good(client.patch(f"/gallery/{crop_id}", json=given))
    assert becomes == was | given | {"captured_at": "2026-05-01T12:00:00Z", "not_identity": ["a"]}
    assert good(client.get(f"/gallery/{crop_id}")) == becomes
    assert good(client.get("/gallery"))["crops"] == [becomes]
    more = good(client.patch(f"/gallery/{crop_id.upper()}", json={"not_identity": ["-1", "a", "..", "x"]}))
    assert more == becomes | {"not_identity": ["-1", "..", "a", "x"]}
    cleared = dict.fromkeys(("identity", "camera", "captured_at", "track", "meta"))
    assert good(client.patch(f"/gallery/{crop_id}", json={**cleared, "not_identity": None})) == was | cleared


@pytest.mark.parametrize(
    ("body", "slug", "said"),
    [
        ("{}", "invalid-field", "nothing is to be changed"),
        ('{"name": "a"}', "unknown-field", "name"),
        ('{"crop_id": "a"}', "unknown-field", "crop_id"),
        ('{"identity": ""}', "invalid-field", "identity: must be"),
        ('{"identity": "a/b"}', "invalid-field", "identity: must be"),
        ('{"identity": 7}', "invalid-field", "identity"),
        ('{"not_identity": []}', "invalid-field", "not_identity"),
        ('{"not_identity": ["a", ""]}', "invalid-field", "not_identity.1: must be"),
        ('{"not_identity": [null]}', "invalid-field", "not_identity.0"),
        ('{"identity": "a", "not_identity": ["b", "a"]}', "invalid-field", "the same one"),
        ('{"captured_at": "2026-05-01T12:00:00"}', "invalid-field", "RFC 3339"),
        ('{"meta": [1]}', "invalid-field", "must be a JSON object"),
        ('{"meta": {"a": NaN}}', "invalid-field", "NaN"),
        ('{"meta": {"a": ' + "9" * 5000 + "}}", "malformed-body", "not JSON"),
        ("[]", "invalid-field", "object"),
        ("null", "invalid-field", "object"),
        ('{"identity": "a"', "malformed-body", "not JSON"),
        ('{"identity": "\\ud800"}', "malformed-body", "not JSON"),
        ("", "malformed-body", "not JSON"),
        (f'{{"track": "{"x" * 2**20}"}}', "body-too-large", "1 MiB"),
    ],
)
def test_a_correction_that_cannot_be_is_refused(client: httpx.Client, body: str, slug: str, said: str) -> None:
    (crop_id,) = enrol(client, 1, identity="a", camera="c1")
    was = good(client.get(f"/gallery/{crop_id}"))
    headers = {"Content-Type": "application/json"}
    problem = expect(client.patch(f"/gallery/{crop_id}", content=body, headers=headers), slug)
    assert said in problem["detail"]
    assert good(client.get(f"/gallery/{crop_id}")) == was


def test_json_is_said_to_be_json(client: httpx.Client) -> None:
    (crop_id,) = enrol(client, 1, identity="a")
    for method, path in (("PATCH", f"/gallery/{crop_id}"), ("PATCH", "/identities/a"), ("POST", "/erasures")):
        for headers in ({}, {"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"}):
            answer = client.request(method, path, content='{"identity": "b"}', headers=headers)
            assert "application/json" in expect(answer, "unsupported-media-type")["detail"]
        expect(client.request(method, f"{path}?identity=b", json={"identity": "b"}), "unknown-field")
    assert names(client) == {"a": 1}
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert client.patch("/identities/a", content='{"identity": "b"}', headers=headers).status_code == 200


def test_an_unknown_crop_cannot_be_corrected(client: httpx.Client) -> None:
    for crop_id in (NOBODY, "x", "..%2Fmodel"):
        answer = client.patch(f"/gallery/{crop_id}", json={"camera": "c1"})
        expect(answer, "not-found" if "%2F" in crop_id else "unknown-crop")


def test_a_query_by_a_crop_leaves_out_whom_it_is_not(client: httpx.Client) -> None:
    (probe,) = enrol(client, 1)
    (other,) = enrol(client, 2)
    for number, name in ((9, "a"), (10, "b"), (11, "c")):
        enrol(client, number, identity=name)
    assert set(matched(client, probe)) == {None, "a", "b", "c"}
    client.patch(f"/gallery/{probe}", json={"not_identity": ["a", "nobody"]})
    client.patch(f"/gallery/{other}", json={"not_identity": "b"})
    assert set(matched(client, probe)) == {None, "b", "c"}
    assert set(matched(client, probe, other)) == {None, "c"}
    answer = good(client.post("/query", json={"crop_ids": [probe, other]}))
    assert answer["searched"] == 3
    assert matched(client, probe, identity="a") == []
    client.patch(f"/gallery/{probe}", json={"identity": "a"})  # a person's last word
    assert "a" in matched(client, probe)


def test_enrolling_again_does_not_undo_what_a_person_said(client: httpx.Client) -> None:
    (crop_id,) = enrol(client, 1, identity="a")
    corrected = good(client.patch(f"/gallery/{crop_id}", json={"not_identity": "a"}))
    assert (corrected["identity"], corrected["not_identity"]) == (None, ["a"])
    answer = client.post("/gallery", files=uploads(crop(1)), data={"identity": "a", "camera": "c2"})
    (result,) = good(answer)["results"]
    assert (result["status"], result["identity"], result["camera"]) == ("updated", None, "c2")
    assert names(client) == {}


def test_an_identity_is_described_by_its_crops(client: httpx.Client) -> None:
    first, *_ = enrol(client, 1, identity="0042", camera="c2", captured_at="2026-05-01T12:00:00Z")
    enrol(client, 2, identity="0042", camera="c1", captured_at="2026-05-01T11:00:00Z")
    enrol(client, 3, identity="0042")
    described = {
        "identity": "0042",
        "crops": 3,
        "cameras": ["c1", "c2"],
        "first_captured_at": "2026-05-01T11:00:00Z",
        "last_captured_at": "2026-05-01T12:00:00Z",
        "crop_id": first,
    }
    assert good(client.get("/identities/0042")) == described
    assert good(client.get("/identities")) == {"identities": [described], "next_cursor": None}
    (other,) = enrol(client, 4, identity="0001")
    unseen = {"identity": "0001", "crops": 1, "cameras": [], "first_captured_at": None, "last_captured_at": None}
    page = good(client.get("/identities?limit=1"))
    assert page["identities"] == [unseen | {"crop_id": other}]
    assert good(client.get("/identities", params={"cursor": page["next_cursor"]}))["identities"] == [described]


def test_renaming_and_merging_say_what_moved(service: Served) -> None:
    client = service.client
    one, two = enrol(client, 1, 2, identity="a")
    enrol(client, 3, identity="b")
    assert good(client.patch("/identities/a", json={"identity": "-1"})) == {
        "identity": "-1",
        "moved": 2,
        "merged": False,
    }
    expect(client.get("/identities/a"), "unknown-identity")
    assert matched(client, one)[0] == "-1"
    merge = client.patch("/identities/-1", json={"identity": "b"})
    assert good(merge) == {"identity": "b", "moved": 2, "merged": True}
    assert good(client.patch("/identities/b", json={"identity": "b"}))["moved"] == 0
    assert names(client) == {"b": 3}
    assert matched(client, two) == ["b"]
    assert service.runtime.gallery.identity_count == 1


def test_deleting_an_identity_erases_its_crops(service: Served) -> None:
    client = service.client
    gone = enrol(client, 1, 2, identity="a")
    (kept,) = enrol(client, 3)
    answer = client.delete("/identities/a")
    assert (answer.status_code, answer.content) == (204, b"")
    expect(client.delete("/identities/a"), "unknown-identity")
    for crop_id in gone:
        expect(client.get(f"/gallery/{crop_id}"), "unknown-crop")
        expect(client.get(f"/gallery/{crop_id}/image"), "unknown-crop")
    assert [one["crop_id"] for one in good(client.get("/gallery"))["crops"]] == [kept]
    assert service.runtime.gallery.crop_count == 1


@pytest.mark.parametrize("name", ["-1", "a:b.c_d", "_", "x" * 128, "%2E", "%2E%2E", "...", "-"])
def test_every_legal_name_is_an_address(client: httpx.Client, name: str) -> None:
    meant = name.replace("%2E", ".")
    enrol(client, 1, identity=meant)
    assert good(client.get(f"/identities/{name}"))["identity"] == meant
    assert good(client.patch(f"/identities/{name}", json={"identity": "other"}))["moved"] == 1
    assert good(client.patch("/identities/other", json={"identity": meant}))["moved"] == 1
    assert client.delete(f"/identities/{name}").status_code == 204
    assert names(client) == {}


@pytest.mark.parametrize("name", ["x" * 129, "a b", "%00", "a%0A", "%C3%A9", "%E2%80%AEa", "a,b", "*"])
def test_what_can_be_no_name_is_refused_by_its_rule(client: httpx.Client, name: str) -> None:
    for method, body in (("GET", None), ("PATCH", {"identity": "a"}), ("DELETE", None)):
        problem = expect(client.request(method, f"/identities/{name}", json=body), "invalid-field")
        assert "must be 1-128 of" in problem["detail"]
    assert (
        "must be 1-128 of" in expect(client.patch("/identities/a", json={"identity": "a b"}), "invalid-field")["detail"]
    )


def test_strange_parameters_of_the_list_are_refused(client: httpx.Client) -> None:
    expect(client.get("/identities?page=2"), "unknown-field")
    expect(client.get("/identities?limit=1&limit=2"), "invalid-field")
    for limit in ("0", "1001", "x", ""):
        expect(client.get("/identities", params={"limit": limit}), "invalid-field")
    for cursor in ("x", "MTox", "é"):
        expect(client.get("/identities", params={"cursor": cursor}), "invalid-cursor")
    expect(client.get("/identities", params={"cursor": "x" * 1001}), "invalid-field")
    assert set(expect(client.post("/identities"), "method-not-allowed")) >= {"detail"}
    assert client.put("/identities/a").headers["Allow"] == "DELETE, GET, HEAD, PATCH"


def test_an_erasure_gives_a_receipt(service: Served) -> None:
    client = service.client
    enrol(client, 1, 2, identity="a")
    marked, other = enrol(client, 3, 4, camera="c1", captured_at="2026-05-01T12:00:00Z")
    client.patch(f"/gallery/{marked}", json={"not_identity": "a"})
    receipt = good(client.post("/erasures", json={"identity": "a"}))
    assert set(receipt) == {"id", "erased_at", "asked", "crops", "wal_truncated"}
    assert (receipt["asked"], receipt["crops"], receipt["wal_truncated"]) == ({"identity": "a"}, 2, True)
    assert receipt["erased_at"].endswith("Z")
    assert good(client.get(f"/gallery/{marked}"))["not_identity"] == []
    again = good(client.post("/erasures", json={"identity": "a"}))
    assert (again["crops"], again["id"] == receipt["id"]) == (0, False)

    early = {"camera": "c1", "before": "2026-05-01T14:00:00+02:00"}
    answer = good(client.post("/erasures", json=early))
    assert (answer["crops"], answer["asked"]) == (0, early | {"before": "2026-05-01T12:00:00Z"})
    ids = {"crop_ids": [other.upper(), other, NOBODY]}
    answer = good(client.post("/erasures", json=ids))
    assert (answer["crops"], answer["asked"]) == (1, {"crop_ids": [other, other, NOBODY]})
    assert good(client.post("/erasures", json={"camera": "c1"}))["crops"] == 1
    assert service.runtime.gallery.crop_count == 0


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"identity": None},
        {"identity": ""},
        {"identity": "a", "camera": "c1"},
        {"identity": "a", "before": "2026-05-01T12:00:00Z"},
        {"before": "2026-05-01T12:00:00Z"},
        {"camera": "c1", "before": "yesterday"},
        {"crop_ids": []},
        {"crop_ids": ["x"]},
        {"crop_ids": [NOBODY] * 1001},
        {"crop_ids": NOBODY},
        {"camera": ["c1"]},
    ],
    ids=lambda body: str(body)[:40],
)
def test_an_unclear_erasure_erases_nothing(service: Served, body: dict[str, object]) -> None:
    enrol(service.client, 1, identity="a", camera="c1")
    expect(service.client.post("/erasures", json=body), "invalid-field")
    expect(service.client.post("/erasures", json={"identity": "a", "confirm": True}), "unknown-field")
    assert service.runtime.gallery.crop_count == 1


def test_decisions_outlive_a_restart(make_settings: Callable[..., Settings]) -> None:
    with serve(make_settings()) as served:
        (crop_id,) = enrol(served.client, 1, identity="a")
        enrol(served.client, 2, identity="b")
        enrol(served.client, 3, identity="c")
        served.client.patch(f"/gallery/{crop_id}", json={"not_identity": "c", "camera": "c9"})
        served.client.patch("/identities/b", json={"identity": "a"})
        served.client.delete("/identities/c")
        before = good(served.client.get("/gallery"))
    with serve(make_settings()) as served:
        assert good(served.client.get("/gallery")) == before
        assert names(served.client) == {"a": 2}


def test_a_page_of_another_site_may_not_decide(client: httpx.Client) -> None:
    (crop_id,) = enrol(client, 1, identity="a")
    foreign = {"Origin": "https://elsewhere.test"}
    for method, path in (("PATCH", f"/gallery/{crop_id}"), ("PATCH", "/identities/a"), ("POST", "/erasures")):
        expect(client.request(method, path, json={"identity": "b"}, headers=foreign), "forbidden-origin")
    expect(client.delete("/identities/a", headers=foreign), "forbidden-origin")
    assert names(client) == {"a": 1}


def test_the_description_has_the_bodies(make_settings: Callable[..., Settings]) -> None:
    paths = create_app(make_settings()).openapi()["paths"]
    for path, method, fields in (
        ("/gallery/{crop_id}", "patch", {"identity", "camera", "captured_at", "track", "meta", "not_identity"}),
        ("/identities/{identity}", "patch", {"identity"}),
        ("/erasures", "post", {"identity", "crop_ids", "camera", "before"}),
    ):
        content = paths[path][method]["requestBody"]["content"]
        assert set(content["application/json"]["schema"]["properties"]) == fields
