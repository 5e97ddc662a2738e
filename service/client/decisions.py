"""What a person decides, through the client: corrections of crops, identities renamed and merged, erasures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx

from service.client.answers import Crop, read_crop, read_moment, read_nothing
from service.client.calls import Consistency, Moment, consistent, rfc3339, segment
from service.client.failures import Json
from service.client.sending import Answer, Call


@dataclass(frozen=True)
class Identity:
    """An identity by its crops: how many, and which cameras saw it between which times (None: no crop says).

    `crop_id` is the crop enrolled first, a face for it.
    """

    identity: str
    crops: int
    cameras: tuple[str, ...]
    first_captured_at: datetime | None
    last_captured_at: datetime | None
    crop_id: str


@dataclass(frozen=True)
class IdentityPage:
    identities: tuple[Identity, ...]
    next_cursor: str | None


@dataclass(frozen=True)
class Renamed:
    """How many crops moved to `identity`, and whether that had crops before."""

    identity: str
    moved: int
    merged: bool


@dataclass(frozen=True)
class Receipt:
    """What an erasure erased. `wal_truncated`: whether the database's log is rid of it, too; else a reader holds it."""

    id: str
    erased_at: datetime
    asked: Mapping[str, Any]
    crops: int
    wal_truncated: bool


class Decisions(ABC):
    """The methods of the client that are about people's decisions; `send` is the client's."""

    @abstractmethod
    def send(self, call: Call[Answer]) -> Answer:
        """Send a call and read its answer."""

    def correct(self, crop_id: str, **changes: object) -> Crop:
        """Change what is said about a crop: `identity`, `camera`, `captured_at`, `track`, `meta`; None clears one.

        `not_identity`, a name or several, says who it is not, None takes that back. Returns the crop as it is then.
        """
        return self.send(correct_call(crop_id, changes))

    def identities(self, *, page_size: int = 1000, consistency: Consistency | None = None) -> Iterator[Identity]:
        """Every identity, by name; pages are fetched as the iteration reaches them."""
        cursor: str | None = None
        while True:
            page = self.send(identities_call(page_size, cursor, consistency))
            yield from page.identities
            cursor = page.next_cursor
            if cursor is None:
                return

    def identity(self, identity: str, *, consistency: Consistency | None = None) -> Identity:
        """One identity by its name."""
        return self.send(identity_call(identity, consistency=consistency))

    def rename(self, identity: str, new: str) -> Renamed:
        """Give an identity another name; that of another identity merges the two for good."""
        return self.send(rename_call(identity, new))

    def delete_identity(self, identity: str) -> None:
        """Remove all crops of an identity for good; `erase` does the same with a receipt."""
        self.send(delete_identity_call(identity))

    def erase(
        self,
        *,
        identity: str | None = None,
        crop_ids: Sequence[str] | None = None,
        camera: str | None = None,
        before: Moment | None = None,
    ) -> Receipt:
        """Erase all crops of an identity, up to 1000 crops by id, or what a camera saw (only `before` a time)."""
        return self.send(erase_call(identity=identity, crop_ids=crop_ids, camera=camera, before=before))


def correct_call(crop_id: str, changes: Mapping[str, object]) -> Call[Crop]:
    """PATCH /gallery/{crop_id}; see `Decisions.correct`."""
    body = {name: rfc3339(value) if isinstance(value, datetime) else value for name, value in changes.items()}
    return Call("PATCH", f"/gallery/{segment(crop_id)}", read_crop, json=body)


def identities_call(
    limit: int = 1000, cursor: str | None = None, consistency: Consistency | None = None
) -> Call[IdentityPage]:
    """GET /identities: one page of at most `limit` identities."""
    params = {"limit": str(limit)} if cursor is None else {"limit": str(limit), "cursor": cursor}
    return Call("GET", "/identities", read_identities, params=params | consistent(consistency))


def identity_call(identity: str, *, consistency: Consistency | None = None) -> Call[Identity]:
    """GET /identities/{identity}."""
    return Call("GET", f"/identities/{segment(identity)}", read_identity, params=consistent(consistency))


def rename_call(identity: str, new: str) -> Call[Renamed]:
    """PATCH /identities/{identity}; a second one would answer 404."""
    path = f"/identities/{segment(identity)}"
    return Call("PATCH", path, read_renamed, json={"identity": new}, repeatable=False)


def delete_identity_call(identity: str) -> Call[None]:
    """DELETE /identities/{identity}; a second one would answer 404."""
    return Call("DELETE", f"/identities/{segment(identity)}", read_nothing, repeatable=False)


def erase_call(
    *,
    identity: str | None = None,
    crop_ids: Sequence[str] | None = None,
    camera: str | None = None,
    before: Moment | None = None,
) -> Call[Receipt]:
    """POST /erasures. Not repeated: the second receipt would count nothing."""
    asked = {
        "identity": identity,
        "crop_ids": None if crop_ids is None else list(crop_ids),
        "camera": camera,
        "before": rfc3339(before),
    }
    given = {name: value for name, value in asked.items() if value is not None}
    return Call("POST", "/erasures", read_receipt, json=given, repeatable=False)


def read_identities(response: httpx.Response) -> IdentityPage:
    answer = response.json()
    return IdentityPage(tuple(map(_identity, answer["identities"])), answer["next_cursor"])


def read_identity(response: httpx.Response) -> Identity:
    return _identity(response.json())


def read_renamed(response: httpx.Response) -> Renamed:
    answer = response.json()
    return Renamed(answer["identity"], answer["moved"], answer["merged"])


def read_receipt(response: httpx.Response) -> Receipt:
    answer = response.json()
    erased_at = datetime.fromisoformat(answer["erased_at"])
    return Receipt(answer["id"], erased_at, answer["asked"], answer["crops"], answer["wal_truncated"])


def _identity(answer: Json) -> Identity:
    return Identity(
        identity=answer["identity"],
        crops=answer["crops"],
        cameras=tuple(answer["cameras"]),
        first_captured_at=read_moment(answer["first_captured_at"]),
        last_captured_at=read_moment(answer["last_captured_at"]),
        crop_id=answer["crop_id"],
    )
