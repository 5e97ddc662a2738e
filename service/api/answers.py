"""What the API gives, as pydantic models made of the dataclasses inside."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field
from starlette.responses import Response

from service.gallery.records import Answer, Crop, Hit, Match
from service.inference.model import ModelInfo
from service.keys import KeyScope


def json_response(answer: BaseModel, status: int = 200) -> Response:
    """The answer as JSON, without what was never set. Takes a while for a large one: call it in a thread."""
    return Response(answer.model_dump_json(exclude_unset=True), status, media_type="application/json")


class ModelRef(BaseModel):
    """Which model answered."""

    name: str
    sha256: str

    @classmethod
    def of(cls, info: ModelInfo) -> ModelRef:
        return cls(name=info.name, sha256=info.sha256)


class EnrolResult(BaseModel):
    """What became of one image."""

    index: int = Field(description="its place among the images, from 0")
    status: Literal["created", "duplicate", "updated", "failed"] = Field(
        description="duplicate: these bytes are there already; updated: they are, and got the labels given now"
    )
    crop_id: str | None = None
    identity: str | None = None
    camera: str | None = None
    problem: dict[str, Any] | None = Field(default=None, description="with status failed: why, as in an error")


class EnrolResponse(BaseModel):
    """The answer of `POST /gallery`, one result for each image in the order of the images."""

    results: list[EnrolResult]
    model: ModelRef


class HitOut(BaseModel):
    """A crop near the probe."""

    crop_id: str
    camera: str | None
    captured_at: datetime | None
    distance: float = Field(description="from the probe; in [0, 1], smaller is nearer")

    @classmethod
    def of(cls, hit: Hit) -> HitOut:
        crop = hit.crop
        return cls(crop_id=crop.crop_id, camera=crop.camera, captured_at=crop.captured_at, distance=hit.distance)


class MatchOut(BaseModel):
    """An identity, or a crop without one, with its nearest crop."""

    rank: int = Field(description="1 is the nearest")
    identity: str | None = Field(description="null: a crop that nobody has named")
    distance: float = Field(description="of the nearest crop; in [0, 1], smaller is nearer")
    similarity: float = Field(description="1 - distance")
    crop_id: str = Field(description="the nearest crop; camera and captured_at are of this one")
    camera: str | None
    captured_at: datetime | None
    support: int | None = Field(description="crops of this identity under the match distance")
    crops: list[HitOut] = Field(description="its nearest crops, `crops_per_identity` at most")

    @classmethod
    def of(cls, match: Match) -> MatchOut:
        return cls(
            rank=match.rank,
            identity=match.identity,
            distance=match.distance,
            similarity=match.similarity,
            crop_id=match.crop.crop_id,
            camera=match.crop.camera,
            captured_at=match.crop.captured_at,
            support=match.support,
            crops=[HitOut.of(hit) for hit in match.crops],
        )


class AttentionOut(BaseModel):
    """How much attention each position of the last map receives: for each image, h rows of w weights, row by row."""

    h: int = Field(description="rows of the last map")
    w: int = Field(description="its columns")
    weights: list[list[float]] = Field(description="for each image h · w numbers")


class QueryResponse(BaseModel):
    """The answer of `POST /query`."""

    verdict: Literal["match", "ambiguous", "unknown", "empty_gallery"] | None = Field(
        description="null when neither the model nor RESIGHT_MATCH_DISTANCE says what a match is"
    )
    match_distance: float | None = Field(
        description="the nearest is a match below this; null when unknown, or nothing was compared"
    )
    matches: list[MatchOut] = Field(description="identities by their nearest crop, `top_k` at most")
    searched: int = Field(description="crops compared, after filters")
    exact: bool = Field(description="false: only likely crops were looked at")
    model: ModelRef
    timings_ms: dict[str, float] = Field(description="milliseconds of each stage")
    attention: AttentionOut | None = Field(default=None, description="with explain")

    @classmethod
    def of(cls, answer: Answer, info: ModelInfo, timings_ms: dict[str, float]) -> QueryResponse:
        return cls(
            verdict=answer.verdict,
            match_distance=answer.match_distance,
            matches=[MatchOut.of(match) for match in answer.matches],
            searched=answer.searched,
            exact=answer.exact,
            model=ModelRef.of(info),
            timings_ms={stage: round(ms, 3) for stage, ms in timings_ms.items()},
        )


class EmbedResponse(BaseModel):
    """The answer of `POST /embed`: one unit vector of D numbers for each image."""

    embeddings: list[list[float]] = Field(description="a list of D numbers for each image, in their order")
    model: ModelRef


class CropOut(BaseModel):
    """An enrolled crop."""

    crop_id: str
    identity: str | None
    camera: str | None
    captured_at: datetime | None
    track: str | None
    meta: dict[str, Any] | None
    enrolled_at: datetime
    not_identity: list[str] = Field(description="who a person has said it is not")

    @classmethod
    def of(cls, crop: Crop) -> CropOut:
        return cls(
            crop_id=crop.crop_id,
            identity=crop.identity,
            camera=crop.camera,
            captured_at=crop.captured_at,
            track=crop.track,
            meta=None if crop.meta is None else dict(crop.meta),
            enrolled_at=crop.enrolled_at,
            not_identity=list(crop.not_identity),
        )


class PageResponse(BaseModel):
    """A page of the gallery in the order of enrolment."""

    crops: list[CropOut]
    next_cursor: str | None = Field(description="for the next page; null at the end")


class ModelResponse(BaseModel):
    """What the loaded model says about itself, and where it runs."""

    name: str
    architecture: str
    sha256: str
    embedding_dim: int
    height: int
    width: int
    precision: str
    distance: str
    training_data: str
    licence_notice: str
    protocol: str
    metrics: dict[str, Any] | None
    match_distance_curve: bool = Field(description="whether the file carries an impostor-distance curve")
    created: str
    source_revision: str
    file: Literal["loaded", "replaced", "missing"] = Field(
        description="what lies at the file's path now; the service goes on with the model that it has loaded"
    )
    provider: str = Field(description="ONNX Runtime's provider that really runs")
    images_per_second: float = Field(description="measured at start with full batches")


class ReadyResponse(BaseModel):
    """The service answers."""

    status: Literal["ready"] = "ready"
    provider: str
    images_per_second: float = Field(description="measured at start with full batches")
    model: ModelRef
    crops: int
    identities: int
    warnings: list[str] = Field(description="what works, but needs somebody to look after it")


class ReadyToStrangers(BaseModel):
    """What those learn who send no key: it answers, and what it is."""

    status: Literal["ready"] = "ready"
    service: Literal["resight"] = "resight"


class SessionResponse(BaseModel):
    """Who the browser is signed in as."""

    actor: str = Field(description="the key's name, or anonymous where the service has no keys")
    scope: KeyScope
    expires_in: int | None = Field(description="seconds; null where there is no session, because none is needed")


class LiveResponse(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"
