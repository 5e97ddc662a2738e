"""What the service answers, as frozen dataclasses, and how they are read from its responses. Sends nothing."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from service.client.failures import Json, Problem, json_object, problem_of, read_problem
from service.client.failures import NotResight as NotResight
from service.client.failures import ResightError as ResightError
from service.client.failures import Unreachable as Unreachable


@dataclass(frozen=True)
class ModelName:
    """The model an answer was computed with; `sha256` is that of the shipped file."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Enrolled:
    """What became of one image: status is created, duplicate, updated or (with on_error="skip") failed."""

    index: int
    status: str
    crop_id: str | None
    identity: str | None
    camera: str | None
    problem: Problem | None


@dataclass(frozen=True)
class Enrolment:
    results: tuple[Enrolled, ...]
    model: ModelName


@dataclass(frozen=True)
class Crop:
    """A crop as the gallery keeps it; None for what is not known about it.

    `not_identity` are those that a person has said it is not.
    """

    crop_id: str
    identity: str | None
    camera: str | None
    captured_at: datetime | None
    track: str | None
    meta: Mapping[str, Any] | None
    enrolled_at: datetime
    not_identity: tuple[str, ...] = ()


@dataclass(frozen=True)
class Page:
    crops: tuple[Crop, ...]
    next_cursor: str | None


@dataclass(frozen=True)
class Hit:
    """One of an identity's nearest crops. `distance` is ‖a − b‖₂ / 2 in [0, 1]."""

    crop_id: str
    camera: str | None
    captured_at: datetime | None
    distance: float


@dataclass(frozen=True)
class Match:
    """One ranked identity (None: a crop without one), by its nearest crop; `similarity` is 1 − `distance`."""

    rank: int
    identity: str | None
    distance: float
    similarity: float
    crop_id: str
    camera: str | None
    captured_at: datetime | None
    support: int | None
    crops: tuple[Hit, ...]


@dataclass(frozen=True)
class Attention:
    """`weights` float32 [images, h, w]: how much attention each position of the last map receives."""

    h: int
    w: int
    weights: NDArray[np.float32]


@dataclass(frozen=True)
class Ranking:
    """The answer to a query. `matches` are ranked by distance; `searched` counts the crops left by the filters.

    `verdict` is match, ambiguous, unknown, empty_gallery, or None where nothing says what a match is.
    `attention` is there when `explain` was asked.
    """

    verdict: str | None
    matches: tuple[Match, ...]
    searched: int
    exact: bool
    model: ModelName
    timings_ms: Mapping[str, float]
    attention: Attention | None


@dataclass(frozen=True)
class ServedModel:
    """What serves; `details` is everything `GET /model` says."""

    name: str
    sha256: str
    licence_notice: str
    details: Mapping[str, Any]


@dataclass(frozen=True)
class Readiness:
    """`details` is everything `GET /readyz` says, the reason included when the service is not ready."""

    ready: bool
    reason: str | None
    details: Mapping[str, Any]


def read_enrolment(response: httpx.Response) -> Enrolment:
    answer = response.json()
    return Enrolment(tuple(read_enrolled(result) for result in answer["results"]), read_model_name(answer["model"]))


def read_ranking(response: httpx.Response) -> Ranking:
    answer = response.json()
    return Ranking(
        verdict=answer["verdict"],
        matches=tuple(_match(match) for match in answer["matches"]),
        searched=answer["searched"],
        exact=answer["exact"],
        model=read_model_name(answer["model"]),
        timings_ms=answer.get("timings_ms", {}),
        attention=_attention(answer["attention"]) if "attention" in answer else None,
    )


def read_embeddings(response: httpx.Response) -> NDArray[np.float32]:
    """The NPY body as float32 [N, D]."""
    embeddings = np.load(io.BytesIO(response.content), allow_pickle=False)
    if embeddings.ndim != 2 or embeddings.dtype != np.float32:
        raise ValueError(f"expected float32 [N, D], got {embeddings.dtype} {embeddings.shape}")
    return np.asarray(embeddings, dtype=np.float32)


def read_page(response: httpx.Response) -> Page:
    answer = response.json()
    return Page(tuple(_crop(crop) for crop in answer["crops"]), answer["next_cursor"])


def read_crop(response: httpx.Response) -> Crop:
    return _crop(response.json())


def read_image(response: httpx.Response) -> bytes:
    """The JPEG file as it came."""
    if response.headers.get("Content-Type") != "image/jpeg":
        raise ValueError("no picture")
    return response.content


def read_attention_map(response: httpx.Response) -> bytes:
    """The PNG file as it came."""
    if response.headers.get("Content-Type") != "image/png":
        raise ValueError("no picture")
    return response.content


def read_model(response: httpx.Response) -> ServedModel:
    answer = response.json()
    return ServedModel(answer["name"], answer["sha256"], answer["licence_notice"], answer)


def read_readiness(response: httpx.Response) -> Readiness:
    """From 200 and from 503 alike: both are answers to this question, the latter also from a proxy."""
    if response.status_code == 503:
        problem = problem_of(response)
        return Readiness(False, str(problem), json_object(response))
    answer = response.json()
    if answer.get("service") != "resight":  # a service with keys says no more to those who send none
        read_model_name(answer["model"])
    if answer["status"] != "ready":
        raise ValueError("neither ready nor not")
    return Readiness(True, None, answer)


def read_nothing(response: httpx.Response) -> None:
    """For answers without a body."""


def read_enrolled(result: Json) -> Enrolled:
    """One entry of `results`, or one line about an archive's member."""
    problem = result.get("problem")
    return Enrolled(
        index=result["index"],
        status=result["status"],
        crop_id=result.get("crop_id"),
        identity=result.get("identity"),
        camera=result.get("camera"),
        problem=None if problem is None else read_problem(problem),
    )


def _match(match: Json) -> Match:
    return Match(
        rank=match["rank"],
        identity=match["identity"],
        distance=match["distance"],
        similarity=match["similarity"],
        crop_id=match["crop_id"],
        camera=match["camera"],
        captured_at=read_moment(match["captured_at"]),
        support=match["support"],
        crops=tuple(_hit(hit) for hit in match["crops"]),
    )


def _hit(hit: Json) -> Hit:
    return Hit(hit["crop_id"], hit["camera"], read_moment(hit["captured_at"]), hit["distance"])


def _crop(crop: Json) -> Crop:
    return Crop(
        crop_id=crop["crop_id"],
        identity=crop["identity"],
        camera=crop["camera"],
        captured_at=read_moment(crop["captured_at"]),
        track=crop["track"],
        meta=crop["meta"],
        enrolled_at=datetime.fromisoformat(crop["enrolled_at"]),
        not_identity=tuple(crop.get("not_identity", ())),
    )


def read_model_name(model: Json) -> ModelName:
    return ModelName(model["name"], model["sha256"])


def _attention(attention: Json) -> Attention:
    h, w = attention["h"], attention["w"]
    return Attention(h, w, np.asarray(attention["weights"], dtype=np.float32).reshape(-1, h, w))


def read_moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
