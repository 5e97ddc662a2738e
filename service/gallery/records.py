"""What goes into a gallery and what comes out of it: immutable records, and the errors.

Times are timezone-aware; distances are `‖a − b‖₂ / 2` in [0, 1], smaller is nearer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["match", "ambiguous", "unknown", "empty_gallery"]
EnrolStatus = Literal["created", "duplicate", "updated"]


class GalleryError(Exception):
    """A gallery cannot do what was asked; the message is a sentence for its user."""


class ModelMismatch(GalleryError):
    """The gallery holds embeddings of another model."""


class GalleryLocked(GalleryError):
    """Another process owns the data folder."""


class GalleryTooNew(GalleryError):
    """A newer release wrote the database."""


class GalleryDamaged(GalleryError):
    """The database or one of its vectors is not what was written."""


class GalleryUnavailable(GalleryError):
    """The database cannot be read or written now: closed, disk full, I/O error."""


class GalleryFull(GalleryUnavailable):
    """Nothing can be stored until there is room on the disk again; reads go on."""


class InvalidCursor(GalleryError):
    """The page cursor was not made by this gallery."""


class InvalidEmbedding(GalleryError):
    """An embedding has the wrong size, is not finite, or has no direction."""


class UnknownCrop(GalleryError):
    """No crop has this id."""

    def __init__(self, crop_id: str) -> None:
        super().__init__(f"The gallery has no crop {crop_id}.")
        self.crop_id = crop_id


class UnknownIdentity(GalleryError):
    """No crop has this identity."""

    def __init__(self, identity: str) -> None:
        super().__init__(f"The gallery has no identity {identity}.")
        self.identity = identity


@dataclass(frozen=True)
class Labels:
    """What is said about a crop. None means "not given" when enrolling, "not known" when stored."""

    identity: str | None = None
    camera: str | None = None
    captured_at: datetime | None = None
    track: str | None = None
    meta: Mapping[str, object] | None = None

    def __post_init__(self) -> None:
        require_aware("captured_at", self.captured_at)


@dataclass(frozen=True)
class NewCrop:
    """A crop to enrol. `embedding` [D] may be None for a known crop_id, which is then only relabelled.

    `enrolled_at` (None: now) and `not_identity` are for a crop that comes from another gallery; a known one keeps its
    own.
    """

    crop_id: str
    embedding: NDArray[np.float32] | None
    thumbnail: bytes | None = None
    labels: Labels = field(default_factory=Labels)
    enrolled_at: datetime | None = None
    not_identity: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_aware("enrolled_at", self.enrolled_at)


@dataclass(frozen=True)
class Crop:
    """An enrolled crop; `not_identity` are those that a person has said it is not."""

    crop_id: str
    identity: str | None
    camera: str | None
    captured_at: datetime | None
    track: str | None
    meta: Mapping[str, object] | None
    enrolled_at: datetime
    not_identity: tuple[str, ...] = ()


@dataclass(frozen=True)
class Enrolled:
    """What enrolling did with one crop, and the labels that it carries now."""

    crop_id: str
    status: EnrolStatus
    identity: str | None
    camera: str | None


@dataclass(frozen=True)
class Filters:
    """Which crops count. Every filter given must hold.

    A crop without camera is never among `cameras` and never excluded by `exclude_cameras`. A crop without
    `captured_at` falls out as soon as `since` or `until` is given; `since <= captured_at < until`.
    `unidentified` keeps only the crops without identity, `exclude_identities` those and the crops of others.
    """

    cameras: frozenset[str] = frozenset()
    exclude_cameras: frozenset[str] = frozenset()
    identities: frozenset[str] = frozenset()
    exclude_identities: frozenset[str] = frozenset()
    since: datetime | None = None
    until: datetime | None = None
    unidentified: bool = False

    def __post_init__(self) -> None:
        require_aware("since", self.since)
        require_aware("until", self.until)


@dataclass(frozen=True)
class QueryOptions:
    """How to answer a query; `top_k` counts identities, `max_distance` bounds every distance returned.

    `exact` compares with every crop, where a large gallery would look at likely ones only. `strong` asks the
    distributed gallery for all that was acknowledged before; the embedded one always answers so.
    """

    top_k: int = 10
    crops_per_identity: int = 5
    filters: Filters = field(default_factory=Filters)
    max_distance: float | None = None
    exact: bool = False
    strong: bool = False

    def __post_init__(self) -> None:
        if self.top_k < 1 or self.crops_per_identity < 0:
            raise ValueError("top_k must be at least 1 and crops_per_identity at least 0")


@dataclass(frozen=True, eq=False)
class Probe:
    """A query: one person in one or several shots, embeddings [M, D]."""

    embeddings: NDArray[np.float32]
    options: QueryOptions = field(default_factory=QueryOptions)


@dataclass(frozen=True)
class HitCrop:
    """What an answer shows of an enrolled crop."""

    crop_id: str
    identity: str | None
    camera: str | None
    captured_at: datetime | None


@dataclass(frozen=True)
class Hit:
    """A crop and its distance to the query."""

    crop: HitCrop
    distance: float


@dataclass(frozen=True)
class Match:
    """An identity (or, with `identity` None, a single crop without one) and how near it is.

    `crop` is its nearest crop, `crops` its nearest crops as asked for; `support` counts its crops under the
    match distance, None where no match distance is known.
    """

    rank: int
    identity: str | None
    distance: float
    similarity: float
    crop: HitCrop
    support: int | None
    crops: tuple[Hit, ...]


@dataclass(frozen=True)
class Answer:
    """The ranked identities; `searched` counts the crops compared, after filters.

    `match_distance` is the one under which the nearest counts as a match, None if unknown.
    """

    verdict: Verdict | None
    matches: tuple[Match, ...]
    searched: int
    exact: bool
    match_distance: float | None = None


@dataclass(frozen=True)
class Page:
    """Crops in the order in which they were enrolled; `next_cursor` is None on the last page."""

    crops: tuple[Crop, ...]
    next_cursor: str | None


def require_aware(name: str, moment: datetime | None) -> None:
    """Raises ValueError for a time without offset: it names no instant."""
    if moment is not None and moment.utcoffset() is None:
        raise ValueError(f"{name} needs a UTC offset")
