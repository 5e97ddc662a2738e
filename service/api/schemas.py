"""What the API takes, as pydantic models (what it gives is in `answers`). They stay at the edge: inside, there are
dataclasses."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    StringConstraints,
    model_validator,
)

from service.api.limits import (
    MAX_CROPS_PER_IDENTITY,
    MAX_META_BYTES,
    MAX_META_DEPTH,
    MAX_PAGE,
    MAX_QUERY_IMAGES,
    MAX_TOP_K,
)
from service.gallery.records import Filters, Labels, QueryOptions
from service.nesting import deeper_than

REPEATABLE = frozenset({"camera", "exclude_camera"})  # what may be given more than once
RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def _instant(value: object) -> object:
    """An RFC 3339 time with its offset, as UTC; a time without offset names no instant."""
    if isinstance(value, datetime) or value is None:
        return value
    if not isinstance(value, str) or not RFC3339.fullmatch(value):
        raise ValueError("write a time with its offset as RFC 3339 does, 2026-05-01T12:00:00Z")
    try:
        return datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError("this day or hour does not exist; check the time") from error


def _parsed(value: object) -> object:
    """A form brings JSON as text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        raise ValueError("this is not JSON; check quotes and brackets") from error
    except RecursionError as error:
        raise ValueError(f"this nests too deep, {MAX_META_DEPTH} levels are allowed") from error
    except ValueError as error:  # Python's limit on the digits of an integer
        raise ValueError("this has an integer of too many digits; write it as text") from error


def _small_object(value: object) -> object:
    value = _parsed(value)
    if value is None:
        return value
    if not isinstance(value, dict):
        raise ValueError("meta must be a JSON object")
    if deeper_than(value, MAX_META_DEPTH):
        raise ValueError(f"meta nests too deep, {MAX_META_DEPTH} levels are allowed")
    try:
        size = len(json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode())
    except ValueError as error:
        raise ValueError("meta holds what JSON cannot say: NaN, infinity, or half a character") from error
    if size > MAX_META_BYTES:
        raise ValueError(f"meta has {size} bytes, {MAX_META_BYTES} are allowed")
    return value


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,128}$")]
Names = Annotated[list[Name], BeforeValidator(_listed), Field(max_length=1000)]
Instant = Annotated[datetime, BeforeValidator(_instant)]
Meta = Annotated[dict[str, Any], BeforeValidator(_small_object)]


class Strict(BaseModel):
    """A request that must not hold what is not known here."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class LabelsIn(Strict):
    """What is said about one crop. Left out means not known, or, for a known crop, unchanged."""

    identity: Name | None = Field(None, description="who it is; leave it out when that is not known")
    camera: Name | None = Field(None, description="which camera saw it")
    captured_at: Instant | None = Field(None, description="when, RFC 3339 with offset")
    track: Name | None = Field(None, description="the tracklet it belongs to")
    meta: Meta | None = Field(None, description="a JSON object of at most 4 KiB, kept as it is")

    def labels(self, shared: LabelsIn | None = None) -> Labels:
        """These labels; what is left out here is taken from `shared`."""
        given = {} if shared is None else dict(shared)
        given |= {name: value for name, value in self if value is not None}
        return Labels(**{name: given.get(name) for name in LabelsIn.model_fields})


class EnrolForm(LabelsIn):
    """The text fields of `POST /gallery`: labels for all images, and `items` for each."""

    items: Annotated[list[dict[str, Any]], BeforeValidator(_parsed)] | None = Field(
        None, description="JSON array with one object of labels for each image, in their order; it wins"
    )
    on_error: Literal["fail", "skip"] = Field(
        "fail", description="skip: enrol the good images and answer the others with status failed"
    )


class Consistent(Strict):
    """How new what a read sees must be."""

    consistency: Literal["bounded", "strong"] = Field(
        "bounded", description="strong: all that was acknowledged before; of a gallery in a folder every read is"
    )

    @property
    def strong(self) -> bool:
        """Whether all that was acknowledged before must be seen."""
        return self.consistency == "strong"


class FiltersIn(Consistent):
    """Which crops count. Filters given together must all hold."""

    camera: Names = Field([], description="only crops of these cameras; repeatable")
    exclude_camera: Names = Field([], description="no crops of these cameras; repeatable")
    identity: Name | None = Field(None, description="only crops of this identity")
    since: Instant | None = Field(None, description="captured at this time or later")
    until: Instant | None = Field(None, description="captured before this time")

    @model_validator(mode="after")
    def _ordered(self) -> FiltersIn:
        if self.since and self.until and self.since > self.until:
            raise ValueError("since lies after until; swap them")
        return self

    def filters(self, unidentified: bool = False) -> Filters:
        """The gallery's form of these filters."""
        return Filters(
            cameras=frozenset(self.camera),
            exclude_cameras=frozenset(self.exclude_camera),
            identities=frozenset({self.identity} if self.identity else ()),
            since=self.since,
            until=self.until,
            unidentified=unidentified,
        )


class QueryForm(FiltersIn):
    """The options of `POST /query`, as form fields beside images or as members beside a JSON query."""

    top_k: int = Field(10, ge=1, le=MAX_TOP_K, description="how many identities to return")
    crops_per_identity: int = Field(5, ge=0, le=MAX_CROPS_PER_IDENTITY, description="crops shown of each")
    max_distance: FiniteFloat | None = Field(None, ge=0, le=1, description="nothing farther than this")
    exact: bool = Field(False, description="compare with every crop, however many there are")
    explain: bool = Field(False, description="add the attention of every image")

    def options(self) -> QueryOptions:
        """The gallery's form of these options."""
        return QueryOptions(
            self.top_k, self.crops_per_identity, self.filters(), self.max_distance, self.exact, self.strong
        )


class QueryBody(QueryForm):
    """A query without a picture: by crops of the gallery, or by an embedding of the same model."""

    crop_ids: list[str] | None = Field(
        None, min_length=1, max_length=MAX_QUERY_IMAGES, description="enrolled crops of one person, instead of pictures"
    )
    embedding: list[FiniteFloat] | None = Field(
        None, description="instead of crop_ids: D numbers, as `POST /embed` gives them; any length but zero"
    )
    model_sha256: str | None = Field(None, description="with embedding: the model that made it")

    @model_validator(mode="after")
    def _one_probe(self) -> QueryBody:
        if (self.crop_ids is None) == (self.embedding is None):
            raise ValueError("give either crop_ids or embedding")
        if (self.embedding is None) != (self.model_sha256 is None):
            raise ValueError("embedding and model_sha256 belong together")
        if self.explain:
            raise ValueError("explain needs images; send them as multipart/form-data")
        return self


class PageQuery(FiltersIn):
    """The query parameters of `GET /gallery`."""

    unidentified: bool = Field(False, description="only crops without identity")
    limit: int = Field(100, ge=1, le=MAX_PAGE, description="crops on a page")
    cursor: str | None = Field(None, max_length=1000, description="next_cursor of the page before")
