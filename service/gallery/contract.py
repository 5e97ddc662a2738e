"""What the service asks of a gallery, whichever engine keeps it.

`Gallery` (embedded) and `MilvusGallery` (distributed) both do this; the rest of the service knows only these protocols.
What the methods mean, return and raise stands at `Gallery`. `strong` asks for all that any replica had acknowledged
before; the embedded gallery always answers so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import ParamSpec, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.gallery.audit import Act
from service.gallery.erasures import Receipt, Selection
from service.gallery.identities import Correction, Identity, IdentityPage, Renamed
from service.gallery.records import (
    Answer,
    Crop,
    Enrolled,
    Filters,
    GalleryUnavailable,
    InvalidEmbedding,
    NewCrop,
    Page,
    Probe,
)

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class AnyIdentities(Protocol):
    """What a person decides about crops and identities, and the list of these."""

    def page(self, limit: int, cursor: str | None, *, strong: bool = False) -> IdentityPage: ...

    def get(self, identity: str, *, strong: bool = False) -> Identity: ...

    def rename(self, identity: str, new: str) -> Renamed: ...

    def correct(self, crop_id: str, correction: Correction) -> Crop: ...

    def ruled_out(self, crop_ids: Iterable[str], *, strong: bool = False) -> frozenset[str]: ...


class AnyErasures(Protocol):
    """Erasing many crops at once, with a receipt."""

    def erase(self, asked: Selection) -> Receipt: ...


class AnyGallery(Protocol):
    """A gallery that is open. All methods block, except where they say so, and may be called from any thread."""

    @property
    def identities(self) -> AnyIdentities: ...

    @property
    def erasures(self) -> AnyErasures: ...

    @property
    def trouble(self) -> str | None:
        """Why the gallery cannot do its work, None while it can. Never blocks."""

    @property
    def alive(self) -> bool:
        """Whether there is no `trouble`."""

    @property
    def shortage(self) -> str | None:
        """Why nothing more should be enrolled, None while there is room."""

    @property
    def free_bytes(self) -> int | None:
        """Room on its disk, None where that is not known."""

    @property
    def index_lag(self) -> int:
        """Writes acknowledged that searches of this process do not see yet. Never blocks."""

    @property
    def crop_count(self) -> int:
        """How many crops are enrolled, as last known. Never blocks."""

    @property
    def identity_count(self) -> int:
        """How many identities have a crop, as last known. Never blocks."""

    def enrol(self, items: Sequence[NewCrop]) -> list[Enrolled]: ...

    def known(self, crop_ids: Iterable[str]) -> set[str]: ...

    def get(self, crop_id: str, *, strong: bool = False) -> Crop: ...

    def image(self, crop_id: str, *, strong: bool = False) -> bytes | None: ...

    def embeddings(self, crop_ids: Sequence[str], *, strong: bool = False) -> NDArray[np.float32]: ...

    def delete(self, crop_id: str) -> None: ...

    def page(self, filters: Filters, limit: int, cursor: str | None, *, strong: bool = False) -> Page: ...

    def query_all(self, probes: Sequence[Probe]) -> Sequence[Answer | InvalidEmbedding | GalleryUnavailable]: ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class AnyAudit(Protocol):
    """Where it is written down who did what."""

    def pseudonym(self, name: str) -> str: ...

    def note(self, act: Act) -> None: ...

    def perform(
        self, act: Act, work: Callable[Arguments, Result], *arguments: Arguments.args, **named: Arguments.kwargs
    ) -> Result: ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
