"""Tar archives at `POST /gallery`: labels, groups, idempotence, and what a broken archive leaves."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.api import bulk, limits, tarstream
from service.gallery.records import GalleryFull
from service.inference.outcomes import QueueFull
from service.settings import Settings
from tests.drawn_crops import crop
from tests.service.api.archives import END, TAR, archive, in_pieces, manifest, member, send
from tests.service.api.canonical_error import expect
from tests.serving import Served, serve


def statuses(lines: list[dict[str, Any]]) -> list[str]:
    return [line["status"] for line in lines]


def why(line: dict[str, Any]) -> str:
    kind: str = line["problem"]["type"]
    assert line["problem"]["index"] == line["index"]
    return kind.removeprefix("/problems/")


def test_names_are_labels(service: Served) -> None:
    files = {
        "0002_c1s1_000451_03.jpg": crop(1),
        "deep/er/0003_c2s1_000451_03.jpg": crop(2),
        "0000_c3s1_000451_03.jpg": crop(3),
        "-1_c1s1_000451_03.jpg": crop(4),
        "plain.png": crop(5),
    }
    lines, end = send(service.client, archive(files))
    assert [line["name"] for line in lines] == list(files)
    assert statuses(lines) == ["created", "created", "created", "skipped", "created"]
    labels = [(line.get("identity"), line.get("camera")) for line in lines]
    assert labels == [("0002", "c1"), ("0003", "c2"), (None, "c3"), (None, None), (None, None)]
    assert end["done"] is True
    assert end["counts"] == {"created": 4, "skipped": 1}
    assert end["model"]["sha256"] == service.runtime.info.sha256
    assert service.runtime.gallery.crop_count == 4


def test_a_manifest_wins_over_names(service: Served) -> None:
    lines, end = send(
        service.client,
        archive(
            manifest(
                {"file": "./0002_c1s1_000451_03.jpg", "identity": "anna", "meta": {"a": [1]}},
                {"file": "b.png", "identity": "no name"},
                {"file": "c.png", "idnetity": "x"},
                {"file": "never.png"},
            )
            | {"0002_c1s1_000451_03.jpg": crop(1), "b.png": crop(2), "c.png": crop(3), "0004_c4s1_1.jpg": crop(4)}
        ),
    )
    assert statuses(lines) == ["created", "failed", "failed", "created", "failed"]
    assert (lines[0]["identity"], lines[0]["camera"]) == ("anna", None)
    assert (lines[3]["identity"], lines[3]["camera"]) == ("0004", "c4")
    assert [why(lines[at]) for at in (1, 2, 4)] == ["invalid-field", "unknown-field", "refused-member"]
    assert lines[4]["name"] == "never.png"
    assert end["done"]
    assert service.client.get(f"/gallery/{lines[0]['crop_id']}").json()["meta"] == {"a": [1]}


def test_the_first_manifest_counts_also_where_another_follows_at_once(service: Served) -> None:
    manifests = [
        member("manifest.jsonl", json.dumps({"file": "a.png", "identity": who}).encode()) for who in ("a", "b")
    ]
    lines, _ = send(service.client, b"".join(manifests) + member("a.png", crop(1)) + END)
    assert statuses(lines) == ["failed", "created"]
    assert "must be the first member" in lines[0]["problem"]["detail"]
    assert lines[1]["identity"] == "a"


def test_the_same_archive_again_changes_nothing(service: Served) -> None:
    content = archive({f"{number}.png": crop(number) for number in range(5)} | {"again.png": crop(0)})
    lines, _ = send(service.client, content)
    assert statuses(lines) == ["created"] * 5 + ["duplicate"]
    assert statuses(send(service.client, content)[0]) == ["duplicate"] * 6
    assert service.runtime.gallery.crop_count == 5


@pytest.mark.parametrize("size", [100, 511, 4096])
def test_it_may_come_in_any_pieces(service: Served, size: int) -> None:
    content = archive({f"{number}.png": crop(number, size) for number in range(3)})
    lines, end = send(service.client, in_pieces(content, size))
    assert statuses(lines) == ["created"] * 3
    assert end["done"]


def test_every_dialect_of_tar_is_read(service: Served) -> None:
    long = "folder/" * 30 + "0007_c2s1_000001_01.png"
    gnu = member(long, crop(1))
    pax = member(long.replace("0007", "0008"), crop(2), pax_headers={"comment": "x"})
    folders = member("folder", kind=tarfile.DIRTYPE) + member("pax", b"20 comment=whatever\n", kind=tarfile.XGLTYPE)
    lines, end = send(service.client, folders + gnu + pax + END)
    assert [line["identity"] for line in lines] == ["0007", "0008"]
    assert lines[0]["name"] == long
    assert end["done"]


def test_groups_are_answered_while_the_archive_still_arrives(service: Served) -> None:
    """Each line is a promise that is already kept: the client may go away after it."""
    connection = http.client.HTTPConnection(service.url.removeprefix("http://"), timeout=30)
    connection.putrequest("POST", "/gallery")
    for name, value in {**TAR, "Content-Length": str(10**6)}.items():
        connection.putheader(name, value)
    connection.endheaders()
    for number in range(64):
        connection.send(member(f"{number}.png", crop(number)))
    answer = connection.getresponse()
    lines = [json.loads(answer.readline()) for _ in range(64)]
    assert statuses(lines) == ["created"] * 64
    assert service.runtime.gallery.crop_count == 64
    connection.close()
    assert service.client.get("/readyz").status_code == 200


def test_a_client_that_reads_last_holds_nothing_up(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """httpx sends the whole body before it reads: many more lines than any socket holds."""
    monkeypatch.setattr(tarstream, "MAX_NAME", 100_000)
    bad = b"".join(member("a" * 50_000 + str(number), b"no picture") for number in range(400))
    little = httpx.HTTPTransport(socket_options=[(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)])
    with httpx.Client(base_url=service.url, transport=little, timeout=15) as client:
        lines, end = send(client, bad + END)
    assert len(lines) == 400
    assert end["counts"] == {"failed": 400}


REFUSED: dict[str, tuple[bytes, str]] = {
    "a symbolic link": (member("a.png", kind=tarfile.SYMTYPE, linkname="/etc/passwd"), "refused-member"),
    "a hard link": (member("a.png", kind=tarfile.LNKTYPE, linkname="b.png"), "refused-member"),
    "a device": (member("a.png", kind=tarfile.CHRTYPE), "refused-member"),
    "a block device": (member("a.png", kind=tarfile.BLKTYPE), "refused-member"),
    "a pipe": (member("a.png", kind=tarfile.FIFOTYPE), "refused-member"),
    "a kind nobody knows": (member("a.png", crop(1), kind=b"Z"), "refused-member"),
    "an absolute name": (member("/etc/cron.d/a.png", crop(1)), "refused-member"),
    "a name that climbs": (member("a/../../b.png", crop(1)), "refused-member"),
    "a name that climbs by backslashes": (member("..\\b.png", crop(1)), "refused-member"),
    "a name that turns text around": (member("\u202egnp.a", crop(1)), "refused-member"),
    "a name with a line break": (member("a\n.png", crop(1)), "refused-member"),
    "a name of 2000 characters": (member("a" * 2000, crop(1)), "refused-member"),
    "a sparse file": (member("a.png", crop(1), pax_headers={"GNU.sparse.major": "1"}), "refused-member"),
    "a second manifest": (member("b.png", crop(9)) + member("manifest.jsonl", b"{}"), "refused-member"),
    "text": (member("notes.txt", b"hello"), "not-an-image"),
    "nothing": (member("a.png"), "empty-image"),
    "a picture cut short": (member("a.png", crop(1)[:50]), "truncated-image"),
    "a file over 8 MiB": (member("a.png", bytes(limits.MAX_FILE_BYTES + 1)), "file-too-large"),
    "a label of 200 digits": (member("1" * 200 + "_c1s1_000451_03.jpg", crop(1)), "invalid-field"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_member_fails_alone(service: Served, name: str) -> None:
    bad, slug = REFUSED[name]
    lines, end = send(service.client, member("first.png", crop(2)) + bad + member("last.png", crop(3)) + END)
    assert lines[0]["status"] == lines[-1]["status"] == "created"
    assert lines[-2]["status"] == "failed"
    assert why(lines[-2]) == slug
    assert len(lines[-2]["name"]) <= 1024
    assert end["done"]


BROKEN: dict[str, tuple[bytes, str]] = {
    "an end without mark": (b"", "ends before its end mark"),
    "a picture cut off": (member("b.png", crop(5))[:-600], "ends before its end mark"),
    "a header cut off": (member("b.png")[:200], "ends before its end mark"),
    "a flipped bit in a header": (b"x" + member("b.png", crop(5))[1:] + END, "a header is damaged"),
    "garbage": (b"garbage" * 1000, "a header is damaged"),
    "a negative size": (member("b.png", size=-512) + END, "a header is damaged"),
    "another archive behind it": (END + member("b.png", crop(5)) + END, "something follows its end mark"),
    "an old sparse file": (member("b.png", kind=tarfile.GNUTYPE_SPARSE) + END, "stored with holes"),
    "an endless extended header": (member("x", kind=tarfile.XHDTYPE, size=2**30) + END, "more than 64 KiB"),
    "a damaged extended header": (
        member("x", b"99 path=a\n", kind=tarfile.XHDTYPE) + END,
        "extended header is damaged",
    ),
    "a size in words": (member("x", b"13 size=-512\n", kind=tarfile.XHDTYPE) + END, "extended header is damaged"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_archive_says_what_is_stored(service: Served, name: str) -> None:
    rest, reason = BROKEN[name]
    lines, end = send(service.client, member("a.png", crop(1)) + member("b.txt", b"no picture") + rest)
    assert statuses(lines) == ["created", "failed"]
    assert end["done"] is False
    assert end["problem"]["type"] == "/problems/malformed-body"
    assert reason in end["problem"]["detail"]
    assert service.runtime.gallery.crop_count == 1
    assert service.client.get(f"/gallery/{lines[0]['crop_id']}").status_code == 200


NOTHING: dict[str, tuple[bytes, str, str]] = {
    "an empty body": (b"", "malformed-body", "ends before its end mark"),
    "gzip": (gzip.compress(archive({"a.png": crop(1)})) * 3, "malformed-body", "compressed; send it as plain tar"),
    "a picture": (crop(1) * 3, "malformed-body", "does not begin like one"),
    "a manifest of no JSON": (archive({"manifest.jsonl": b"{", "a.png": crop(1)}), "malformed-body", "line 1 is no"),
    "a manifest of numbers": (archive({"manifest.jsonl": b"\n1\n"}), "malformed-body", "line 2 is no JSON object"),
    "a deep manifest": (archive({"manifest.jsonl": b"[" * 100_000}), "malformed-body", "line 1 is no JSON object"),
    "a file twice": (archive(manifest({"file": "a"}, {"file": "./a"})), "malformed-body", "line 2 names a file a sec"),
    "a manifest too large": (
        member("manifest.jsonl", bytes(limits.MAX_MANIFEST_BYTES + 1)) + END,
        "file-too-large",
        "16 MiB",
    ),
}


@pytest.mark.parametrize("name", NOTHING)
def test_what_is_refused_before_anything_is_stored_is_an_ordinary_error(service: Served, name: str) -> None:
    content, slug, reason = NOTHING[name]
    answer = service.client.post("/gallery", content=content, headers=TAR)
    assert reason in expect(answer, slug)["detail"]
    assert service.runtime.gallery.crop_count == 0


def test_an_archive_of_nothing_is_nothing(service: Served) -> None:
    lines, end = send(service.client, END)
    assert (lines, end["done"], end["counts"]) == ([], True, {})


def test_too_many_members_and_headers(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "MAX_TAR_MEMBERS", 2)
    lines, end = send(service.client, archive({f"{number}.png": crop(number) for number in range(3)}))
    assert statuses(lines) == ["created"] * 2
    assert end["problem"]["type"] == "/problems/body-too-large"
    monkeypatch.setattr(tarstream, "MAX_TAR_HEADERS", 3)
    answer = service.client.post("/gallery", content=member("x", kind=tarfile.DIRTYPE) * 9 + END, headers=TAR)
    expect(answer, "body-too-large")


def test_a_tar_has_a_limit_of_its_own(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = http.client.HTTPConnection(service.url.removeprefix("http://"), timeout=30)
    connection.request("POST", "/gallery", headers={**TAR, "Content-Length": str(limits.MAX_TAR_BYTES + 1)})
    assert connection.getresponse().status == 413
    connection.close()
    monkeypatch.setattr(limits, "MAX_TAR_BYTES", 600_000)
    endless = (member(f"{number}.txt", b"x") for number in range(1000))
    lines, end = send(service.client, endless)
    assert 100 < len(lines) < 600
    assert end["problem"]["type"] == "/problems/body-too-large"


def test_a_busy_queue_is_waited_for(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    full = iter([QueueFull(0), QueueFull(0)])
    admission = service.runtime.worker.admission

    def busy_twice(images: int) -> Any:
        for error in full:
            raise error
        return admission(images)

    monkeypatch.setattr(service.runtime.worker, "admission", busy_twice)
    assert statuses(send(service.client, archive({"a.png": crop(1)}))[0]) == ["created"]


def test_a_queue_that_stays_busy_ends_the_archive(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(_: int) -> Any:
        raise QueueFull(0)

    monkeypatch.setattr(bulk, "BUSY_SECONDS", -1.0)
    monkeypatch.setattr(service.runtime.worker, "admission", busy)
    answer = service.client.post("/gallery", content=archive({"a.png": crop(1)}), headers=TAR)
    expect(answer, "queue-full")


def test_a_disk_that_fills_up_ends_the_archive_with_a_count(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    enrol = service.runtime.gallery.enrol
    groups: list[int] = []

    def full_after_one(items: Any) -> Any:
        groups.append(len(items))
        if len(groups) > 1:
            raise GalleryFull("The disk is full; free space, then send it again.")
        return enrol(items)

    monkeypatch.setattr(service.runtime.gallery, "enrol", full_after_one)
    content = archive({f"{number}.png": crop(number % 64, number // 64) for number in range(70)})
    lines, end = send(service.client, content)
    assert statuses(lines) == ["created"] * 64
    assert end["done"] is False
    assert end["problem"]["type"] == "/problems/storage-full"
    assert service.runtime.gallery.crop_count == 64
    groups.append(1)
    expect(service.client.post("/gallery", content=content, headers=TAR), "storage-full")


def test_an_archive_ends_before_it_uses_up_the_room_that_erasing_needs(
    service: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    enrol = service.runtime.gallery.enrol

    def filling(items: Any) -> Any:
        monkeypatch.setattr("service.gallery.space.LEAST_BYTES", 2**60)
        monkeypatch.setattr("service.gallery.space.LEAST_SHARE", 1.0)
        return enrol(items)

    monkeypatch.setattr(service.runtime.gallery, "enrol", filling)
    content = archive({f"{number}.png": crop(number % 64, number // 64) for number in range(70)})
    lines, end = send(service.client, content)
    assert statuses(lines) == ["created"] * 64
    assert end["done"] is False
    assert end["problem"]["type"] == "/problems/storage-full"
    assert "nearly full" in end["problem"]["detail"]
    assert service.runtime.gallery.crop_count == 64
    erased = service.client.post("/erasures", json={"crop_ids": [lines[0]["crop_id"]]})
    assert erased.json()["crops"] == 1


def test_groups_are_small_in_bytes_too(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    enrol = service.runtime.gallery.enrol

    def counted(items: Any) -> Any:
        sizes.append(len(items))
        return enrol(items)

    monkeypatch.setattr(service.runtime.gallery, "enrol", counted)
    monkeypatch.setattr(bulk, "MAX_GROUP_BYTES", 2 * len(crop(1)))
    send(service.client, archive({f"{number}.png": crop(number) for number in range(10)}))
    assert max(sizes) <= 3
    assert sum(sizes) == 10


def test_tar_is_taken_nowhere_else(service: Served) -> None:
    for route in ("/query", "/embed"):
        expect(service.client.post(route, content=END, headers=TAR), "unsupported-media-type")


def test_no_member_becomes_a_file(make_settings: Callable[..., Settings], tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    with serve(make_settings()) as served:
        names = ["../evil.png", "/tmp/evil.png", "data/gallery.db", "lock"]
        send(served.client, b"".join(member(name, crop(1)) for name in names) + END)
        assert not [path for path in set(tmp_path.rglob("*")) - before if "evil" in path.name]
        assert served.client.get("/readyz").status_code == 200
