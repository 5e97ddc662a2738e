"""Who makes a gallery's collections: replicas at the same time, and a start after one that was killed half-way."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from service.gallery.records import GalleryDamaged
from service.gallery.store import Model
from service.gallery_milvus import collections
from service.gallery_milvus.address import Address
from service.gallery_milvus.collections import Collections, open_collections
from service.gallery_milvus.server import Server
from tests.milvus_server import NEEDS_MILVUS, MilvusServer
from tests.service.gallery.cases import MODEL

pytestmark = NEEDS_MILVUS


class Killed(BaseException):
    """Nothing more is done."""


@pytest.fixture
def opened(milvus: MilvusServer, request: pytest.FixtureRequest) -> Callable[..., Collections]:
    """Opens the collections of this test over a connection of its own."""

    def open_them(index: str = "auto") -> Collections:
        name = request.node.originalname
        server = Server(Address("127.0.0.1", milvus.port, name))
        try:
            return open_collections(server, name, Model(MODEL, "model-a", 16), index)
        finally:
            server.close()

    return open_them


@pytest.fixture
def foreign(milvus: MilvusServer, request: pytest.FixtureRequest) -> Iterator[Callable[..., None]]:
    """Makes a collection of somebody else in the place of one of this test's; it must be there in the end."""
    name, made = request.node.originalname, []
    server = Server(Address("127.0.0.1", milvus.port, name))

    def make(suffix: str = "", **content: object) -> None:
        types, client = server.library.DataType, server.library.MilvusClient
        schema = client.create_schema(description=json.dumps(content))
        schema.add_field("number", types.INT64, is_primary=True)
        schema.add_field("embedding", types.FLOAT_VECTOR, dim=4)
        made.append(f"{name}{suffix}")
        server.call("create_collection", 60, made[-1], schema=schema)

    yield make
    for collection in made:
        fields = server.call("describe_collection", 60, collection)["fields"]
        assert [field["name"] for field in fields] == ["number", "embedding"]
        server.call("drop_collection", 60, collection)
    assert not server.call("has_collection", 60, name)
    server.close()


def test_replicas_that_start_at_once_share_one_gallery(
    opened: Callable[..., Collections], monkeypatch: pytest.MonkeyPatch
) -> None:
    both, made = threading.Barrier(2), collections._make_crops

    def make_at_once(*arguments: Any) -> Any:
        both.wait(60)
        return made(*arguments)

    monkeypatch.setattr(collections, "_make_crops", make_at_once)
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: opened(), range(2))
    assert one == other


def test_a_start_goes_on_where_one_was_killed_before_the_index(
    opened: Callable[..., Collections], monkeypatch: pytest.MonkeyPatch
) -> None:
    called = Server.call

    def killed(self: Server, method: str, *arguments: Any, **named: Any) -> Any:
        if method == "create_index":
            raise Killed
        return called(self, method, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Server, "call", killed)
        with pytest.raises(Killed):
            opened()
    assert opened("hnsw").index == "HNSW"
    assert opened("exact").index == "HNSW"


CONTENT = {"resight": 1, "model_sha256": MODEL, "model_name": "model-a", "dim": 4, "audit_secret": "00"}


@pytest.mark.parametrize("content", [{}, {"resight": 1}, CONTENT, {**CONTENT, "model_sha256": "b" * 64}])
def test_a_collection_of_somebody_else_is_refused(
    opened: Callable[..., Collections], foreign: Callable[..., None], content: dict[str, object]
) -> None:
    foreign(**content)
    with pytest.raises(GalleryDamaged, match="refused in Milvus is not one of Resight; choose another name"):
        opened()


def test_names_of_somebody_else_are_refused_before_anything_is_made(
    opened: Callable[..., Collections], foreign: Callable[..., None]
) -> None:
    foreign("_identities")
    with pytest.raises(GalleryDamaged, match="made_identities in Milvus is not one of Resight"):
        opened()


def test_an_empty_gallery_of_another_model_goes_only_where_its_names_are_ours(
    opened: Callable[..., Collections], foreign: Callable[..., None], milvus: MilvusServer
) -> None:
    name = "test_an_empty_gallery_of_another_model_goes_only_where_its_names_are_ours"
    opened()
    server = Server(Address("127.0.0.1", milvus.port, name))
    server.call("drop_collection", 60, f"{name}_identities")
    foreign("_identities")
    with pytest.raises(GalleryDamaged, match="not one of Resight"):
        open_collections(server, name, Model("b" * 64, "model-b", 16), "auto")
    server.call("drop_collection", 60, name)
    server.close()


def test_embeddings_of_another_dimension_than_the_description_says_are_refused(
    opened: Callable[..., Collections], milvus: MilvusServer
) -> None:
    name = "test_embeddings_of_another_dimension_than_the_description_says_are_refused"
    server = Server(Address("127.0.0.1", milvus.port, name))
    schema = collections._crops_schema(server, 8, json.dumps({**CONTENT, "dim": 16}))
    server.call("create_collection", 60, name, schema=schema)
    with pytest.raises(GalleryDamaged, match="not one of Resight"):
        opened()
    server.close()
