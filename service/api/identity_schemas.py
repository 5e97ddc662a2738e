"""What the routes about people's decisions take and give: corrections, identities, erasures."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, Field, model_validator

from service.api.limits import MAX_PAGE
from service.api.schemas import Consistent, Instant, LabelsIn, Name, Names, Strict
from service.gallery.erasures import Receipt, Selection
from service.gallery.identities import Correction, Identity, IdentityPage, Renamed
from service.gallery.records import Labels

MAX_ERASED_BY_ID = 1000


class CropPatch(LabelsIn):
    """What changes about a crop: what is left out stays, null clears a label."""

    not_identity: Annotated[Names, Field(min_length=1)] | None = Field(
        None, description="who it is not: a name or a list of names, added to those known; null takes all of them back"
    )

    @model_validator(mode="after")
    def _possible(self) -> CropPatch:
        if not self.model_fields_set:
            raise ValueError("nothing is to be changed; name at least one label, or not_identity")
        self.correction()
        return self

    def correction(self) -> Correction:
        """The gallery's form of it."""
        labels = {name: getattr(self, name) for name in LabelsIn.model_fields}
        taken_back = "not_identity" in self.model_fields_set and self.not_identity is None
        return Correction(
            labels=Labels(**labels),
            given=frozenset(labels) & self.model_fields_set,
            not_identity=None if taken_back else frozenset(self.not_identity or ()),
        )


class IdentityPageQuery(Consistent):
    """The query parameters of `GET /identities`."""

    limit: int = Field(100, ge=1, le=MAX_PAGE, description="identities on a page")
    cursor: str | None = Field(None, max_length=1000, description="next_cursor of the page before")


class IdentityPatch(Strict):
    """An identity's new name."""

    identity: Name = Field(description="the new name; that of another identity merges the two")


class ErasureBody(Strict):
    """What is to be erased: an identity, some crops, or what a camera saw."""

    identity: Name | None = Field(None, description="all crops of this identity")
    crop_ids: list[UUID] | None = Field(None, min_length=1, max_length=MAX_ERASED_BY_ID, description="these crops")
    camera: Name | None = Field(None, description="all crops of this camera")
    before: Instant | None = Field(None, description="with camera: only what it captured before this time")

    @model_validator(mode="after")
    def _possible(self) -> ErasureBody:
        self.selection()
        return self

    def selection(self) -> Selection:
        """The gallery's form of it."""
        crop_ids = None if self.crop_ids is None else frozenset(map(str, self.crop_ids))
        return Selection(self.identity, crop_ids, self.camera, self.before)


class IdentityOut(BaseModel):
    """An identity, by its crops."""

    identity: str
    crops: int = Field(description="how many crops it has")
    cameras: list[str] = Field(description="which cameras saw it")
    first_captured_at: datetime | None
    last_captured_at: datetime | None
    crop_id: str = Field(description="the crop that was enrolled first: a face for it")

    @classmethod
    def of(cls, known: Identity) -> IdentityOut:
        return cls(
            identity=known.identity,
            crops=known.crops,
            cameras=list(known.cameras),
            first_captured_at=known.first_captured_at,
            last_captured_at=known.last_captured_at,
            crop_id=known.crop_id,
        )


class IdentityPageResponse(BaseModel):
    """A page of the identities in the order of their names."""

    identities: list[IdentityOut]
    next_cursor: str | None = Field(description="for the next page; null at the end")

    @classmethod
    def of(cls, page: IdentityPage) -> IdentityPageResponse:
        return cls(identities=[IdentityOut.of(known) for known in page.identities], next_cursor=page.next_cursor)


class RenamedResponse(BaseModel):
    """What became of a renaming."""

    identity: str = Field(description="the name that the crops have now")
    moved: int = Field(description="how many crops changed their name")
    merged: bool = Field(description="whether that name had crops before")

    @classmethod
    def of(cls, renamed: Renamed) -> RenamedResponse:
        return cls(identity=renamed.identity, moved=renamed.moved, merged=renamed.merged)


class ErasureReceipt(BaseModel):
    """What was erased. The service keeps no copy: it would say whom it was to forget."""

    id: str
    erased_at: datetime
    asked: ErasureBody = Field(description="the request, as it was understood")
    crops: int = Field(description="how many crops were erased")
    wal_truncated: bool = Field(
        description="whether the database's log is rid of them by now; false: a reader holds it, and the bytes in it"
        " go as soon as that lets go"
    )

    @classmethod
    def of(cls, receipt: Receipt, asked: ErasureBody) -> ErasureReceipt:
        return cls(
            id=receipt.receipt_id,
            erased_at=receipt.erased_at,
            asked=asked,
            crops=receipt.crops,
            wal_truncated=receipt.wal_truncated,
        )
