"""Where a gallery in Milvus is, and what is said where its client is missing."""

from __future__ import annotations

import sys

import pytest

from service.gallery.records import GalleryUnavailable
from service.gallery_milvus.address import Address
from service.gallery_milvus.s3 import Place
from service.gallery_milvus.server import Server, among, both, quoted


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("milvus://10.0.0.7:19531/people", Address("10.0.0.7", 19531, "people")),
        ("milvus://milvus.search.svc/_a1", Address("milvus.search.svc", 19530, "_a1")),
        ("milvus://[::1]:1/a", Address("[::1]", 1, "a")),
    ],
)
def test_an_address_is_read_and_written(url: str, address: Address) -> None:
    assert Address.parse(url) == address
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    "url",
    [
        "milvus://host:19530",
        "milvus://host:19530/",
        "milvus:///people",
        "milvus://host/9a",
        "milvus://host/a-b",
        "milvus://host:0/a",
        "milvus://host:99999/a",
        "milvus://user:secret@host/a",
        "http://host/a",
        "milvus://host/" + "a" * 201,
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"milvus://HOST:PORT|65536"):
        Address.parse(url)


def test_a_password_in_the_address_belongs_into_a_file() -> None:
    with pytest.raises(ValueError, match="RESIGHT_MILVUS_TOKEN_FILE") as refused:
        Address.parse("milvus://user:secret@host:1/x")
    assert "secret" not in str(refused.value)


def test_places_of_pictures() -> None:
    assert Place.parse("s3://crops/a/b/") == Place("crops", "a/b")
    assert Place.parse("s3://crops") == Place("crops", "")
    for url in ("s3:///a", "http://crops/a", "crops", "s3://crops/a?b"):
        with pytest.raises(ValueError, match="s3://BUCKET/PREFIX"):
            Place.parse(url)


def test_a_missing_client_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(
        GalleryUnavailable, match=r"-c constraints.txt '.\[cluster\]' in a checkout; of the images, `cluster`"
    ):
        Server(Address("localhost", 1, "a"))


def test_expressions() -> None:
    assert quoted('a"b\\c') == r'"a\"b\\c"'
    assert among("identity", ["a", 'b"']) == r'identity in ["a", "b\""]'
    assert both("", "") == ""
    assert both("a == 1", "") == "a == 1"
    assert both("a == 1", "b == 2 || c == 3") == "(a == 1) && (b == 2 || c == 3)"
