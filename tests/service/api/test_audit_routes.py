"""Every route that looks somebody up or changes something leaves a line in the audit log, before it is answered."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from service.keys import KeyScope, create_key
from service.settings import Settings
from tests.drawn_crops import crop, uploads
from tests.service.api.canonical_error import expect
from tests.serving import Served, serve


def logged(served: Served) -> list[dict[str, Any]]:
    """All lines, but for those that are not on disk yet."""
    folder = served.runtime.settings.gallery_folder / "audit"
    return [json.loads(line) for file in sorted(folder.glob("*.jsonl")) for line in file.read_text().splitlines()]


def enrol(served: Served, *numbers: int, identity: str) -> list[str]:
    answer = served.client.post("/gallery", files=uploads(*map(crop, numbers)), data={"identity": identity})
    assert answer.status_code == 201
    return [result["crop_id"] for result in answer.json()["results"]]


def test_what_changes_the_gallery_is_on_disk_before_the_answer(service: Served) -> None:
    client, name = service.client, service.runtime.audit.pseudonym
    first, second = enrol(service, 1, 2, identity="anna")
    assert [line["action"] for line in logged(service)] == ["enrol"]
    client.patch(f"/gallery/{first}", json={"identity": "bea"}).raise_for_status()
    client.patch("/identities/bea", json={"identity": "cleo"}).raise_for_status()
    client.delete(f"/gallery/{first}").raise_for_status()
    client.delete("/identities/anna").raise_for_status()
    client.post("/erasures", json={"crop_ids": [second]}).raise_for_status()
    entries = [(line["action"], line["count"], line["ids"]) for line in logged(service)]
    assert entries == [
        ("enrol", 2, [name(first), name(second), name("anna")]),
        ("correct", 1, [name(first), name("bea")]),
        ("rename", None, [name("bea"), name("cleo")]),
        ("erase", 1, [name(first)]),
        ("erase", None, [name("anna")]),
        ("erase", None, [name(second)]),
    ]
    assert {line["actor"] for line in logged(service)} == {"anonymous"}


def test_a_query_is_recorded_with_who_was_found(service: Served) -> None:
    enrol(service, 1, identity="anna")
    service.client.post("/query", files=uploads(crop(1), crop(1))).raise_for_status()
    service.audit._flush()
    assert [(line["action"], line["count"]) for line in logged(service)] == [("enrol", 1), ("query", 2)]
    assert logged(service)[1]["ids"] == [service.runtime.audit.pseudonym("anna")]


def test_the_actor_is_the_keys_name(make_settings: Any, tmp_path: Path) -> None:
    token = create_key(tmp_path / "keys.json", "gate-3", KeyScope.ADMIN)
    settings: Settings = make_settings(keys_file=tmp_path / "keys.json")
    with serve(settings) as served:
        served.client.headers["Authorization"] = f"Bearer {token}"
        enrol(served, 1, identity="anna")
        assert [line["actor"] for line in logged(served)] == ["gate-3"]


def test_what_fails_is_said_to_have(service: Served) -> None:
    expect(service.client.delete("/gallery/00000000-0000-0000-0000-000000000000"), "unknown-crop")
    service.audit._flush()
    assert [line.get("failed") for line in logged(service)] == [None, True]


def test_nothing_is_done_that_cannot_be_recorded(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    (kept,) = enrol(service, 1, identity="anna")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("service.gallery.audit._append", full)
        expect(service.client.post("/gallery", files=uploads(crop(2))), "storage-full")
        expect(service.client.delete(f"/gallery/{kept}"), "storage-full")
        expect(service.client.post("/erasures", json={"identity": "anna"}), "storage-full")
        assert service.client.post("/query", files=uploads(crop(1))).status_code == 200
    assert [crop["crop_id"] for crop in service.client.get("/gallery").json()["crops"]] == [kept]
