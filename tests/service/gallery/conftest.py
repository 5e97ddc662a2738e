"""The galleries that the use cases are tested with: the embedded one, and the distributed one where Milvus can run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from service.gallery.gallery import Gallery
from service.gallery.ranking import ImpostorCurve
from service.gallery.store import Model
from service.gallery_milvus.address import Address
from service.gallery_milvus.gallery import MilvusGallery
from service.gallery_milvus.server import Server
from tests.milvus_server import NEEDS_MILVUS, MilvusServer
from tests.service.gallery.card_doubles import with_card as with_card
from tests.service.gallery.cases import MODEL, open_gallery


@dataclass(frozen=True)
class Opening:
    """Opens the gallery of a test, as `open_gallery` does. Where it is not `quick`, a test does less."""

    open: Callable[..., Gallery]
    quick: bool

    def __call__(self, dim: int = 16, **options: object) -> Gallery:
        return self.open(dim, **options)


class Counting(MilvusGallery):
    """Counts when it is asked, and not now and then."""

    @property
    def crop_count(self) -> int:
        self._check()
        return super().crop_count

    @property
    def identity_count(self) -> int:
        self._check()
        return super().identity_count


@pytest.fixture(params=["embedded", pytest.param("milvus", marks=NEEDS_MILVUS)])
def opening(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Opening:
    """Opens the gallery of this test, as `open_gallery` does; that in Milvus with strong reads."""

    def embedded(dim: int = 16, **options: object) -> Gallery:
        return open_gallery(tmp_path, dim, **options)  # type: ignore[arg-type]

    if request.param == "embedded":
        return Opening(embedded, quick=True)
    server: MilvusServer = request.getfixturevalue("milvus")
    monkeypatch.setattr(Server, "level", staticmethod(lambda strong: {"consistency_level": "Strong"}))
    emptied: set[str] = set()

    def distributed(
        dim: int = 16,
        model: str = MODEL,
        curve: ImpostorCurve | None = None,
        match_distance: float | None = None,
        collection: str | None = None,
    ) -> Gallery:
        address = Address("127.0.0.1", server.port, collection or f"test_{dim}")
        gallery = Counting.open(address, Model(model, f"model-{model[:1]}", dim), curve, match_distance)
        if address.collection not in emptied:
            emptied.add(address.collection)
            gallery.erasures.erase_where('crop_id != ""')
        return gallery  # type: ignore[return-value]

    return Opening(distributed, quick=False)
