"""Who makes a gallery's collections: replicas at the same time, and a start after one that was killed half-way."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

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


def test_replicas_that_start_at_once_share_one_gallery(
    opened: Callable[..., Collections], monkeypatch: pytest.MonkeyPatch
) -> None:
    both, made = threading.Barrier(2), collections._make_crops

    def make_at_once(*arguments: Any) -> dict[str, Any]:
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
