"""Every error of the API: one table of kinds, one body (RFC 9457), one place that names an exception's kind.

`type` is stable and may be compared by a program; `detail` is one sentence for a person that says what
to do; `instance` is the id of the request, the same as in `X-Request-Id` and in the log.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from enum import Enum
from http import HTTPStatus
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from service.gallery.records import (
    GalleryDamaged,
    GalleryError,
    GalleryFull,
    GalleryUnavailable,
    InvalidCursor,
    InvalidEmbedding,
    UnknownCrop,
    UnknownIdentity,
)
from service.inference.images import ImageError
from service.inference.outcomes import EmbeddingFailed, QueueFull, TooLate, WorkerStopped
from service.telemetry import request_id

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = "5"
METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
SHOWN_CHARACTERS = 200  # of what a client sent, in `detail`
NAME_RULE = "must be 1-128 of the letters A-Z a-z, digits and . _ : -"

T = TypeVar("T")


class Kind(Enum):
    """A kind of problem: the end of its `type`, its status and its title."""

    MALFORMED_BODY = ("malformed-body", 400, "The body cannot be read")
    KEY_REQUIRED = ("key-required", 401, "A key is needed")
    UNKNOWN_KEY = ("unknown-key", 401, "The key is not one of this service")
    SCOPE_TOO_SMALL = ("scope-too-small", 403, "The key may not do this")
    FORBIDDEN_ORIGIN = ("forbidden-origin", 403, "The request comes from where none may come from")
    NOT_FOUND = ("not-found", 404, "There is no such page")
    UNKNOWN_CROP = ("unknown-crop", 404, "There is no such crop")
    UNKNOWN_IDENTITY = ("unknown-identity", 404, "There is no such identity")
    NO_STORED_IMAGE = ("no-stored-image", 404, "No picture was kept of this crop")
    METHOD_NOT_ALLOWED = ("method-not-allowed", 405, "This page does not know that method")
    BODY_TOO_SLOW = ("body-too-slow", 408, "The request arrives too slowly")
    MODEL_MISMATCH = ("model-mismatch", 409, "The embedding is of another model")
    BODY_TOO_LARGE = ("body-too-large", 413, "The request is too large")
    FILE_TOO_LARGE = ("file-too-large", 413, "A file is too large")
    IMAGE_TOO_LARGE = ("image-too-large", 413, "A picture takes too much to decode")
    UNSUPPORTED_MEDIA_TYPE = ("unsupported-media-type", 415, "The body has a type that is not known here")
    EMPTY_IMAGE = ("empty-image", 422, "A file is empty")
    NOT_AN_IMAGE = ("not-an-image", 422, "A file is not a picture")
    TRUNCATED_IMAGE = ("truncated-image", 422, "A picture is cut short or damaged")
    REFUSED_MEMBER = ("refused-member", 422, "The archive has a member that is not taken")
    NO_IMAGES = ("no-images", 422, "The request brings no image")
    TOO_MANY_IMAGES = ("too-many-images", 422, "The request brings too many images")
    UNKNOWN_FIELD = ("unknown-field", 422, "The request has a field that is not known here")
    INVALID_FIELD = ("invalid-field", 422, "A field has a value that cannot be used")
    INVALID_CURSOR = ("invalid-cursor", 422, "The cursor is not one of this gallery")
    RATE_LIMITED = ("rate-limited", 429, "The key has sent its images of this minute")
    UPLOADS_FULL = ("uploads-full", 429, "The service is busy")
    QUEUE_FULL = ("queue-full", 429, "The service is busy")
    INTERNAL_ERROR = ("internal-error", 500, "The service failed")
    DAMAGED_CROP = ("damaged-crop", 500, "What is stored is damaged")
    INFERENCE_FAILED = ("inference-failed", 500, "The model gave no usable embedding")
    NOT_READY = ("not-ready", 503, "The service cannot answer now")
    QUEUE_TIMEOUT = ("queue-timeout", 503, "The request waited too long")
    STORAGE_FULL = ("storage-full", 507, "The disk is full")
    REQUEST_REFUSED = ("request-refused", 400, "The request was refused")

    def __init__(self, slug: str, status: int, title: str) -> None:
        self.slug = slug
        self.status = status
        self.title = title

    @property
    def type(self) -> str:
        """The stable URI reference of this kind."""
        return f"/problems/{self.slug}"


class Problem(Exception):
    """One problem with a request. `index` is the position of the bad image or item, where there is one."""

    def __init__(
        self,
        kind: Kind,
        detail: str,
        index: int | None = None,
        reasons: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.status = kind.status if status is None else status
        self.index = index
        self.reasons = tuple(reasons)
        self.headers = dict(headers or {})

    def at(self, index: int) -> Problem:
        """The same problem at another position."""
        return Problem(self.kind, self.detail, index, self.reasons, self.headers, self.status)

    def body(self) -> dict[str, Any]:
        """The members of the RFC 9457 object."""
        members: dict[str, Any] = {
            "type": self.kind.type,
            "title": self.kind.title,
            "status": self.status,
            "detail": self.detail,
            "instance": request_id(),
        }
        if self.index is not None:
            members["index"] = self.index
        if self.reasons:
            members["reasons"] = list(self.reasons)
        return members


def shown(text: str) -> str:
    """What a `detail` repeats of a client's text: its beginning."""
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…"


def unless_problem(outcome: T | Problem) -> T:
    """The outcome; raises it when it is a problem."""
    if isinstance(outcome, Problem):
        raise outcome
    return outcome


class ProblemBody(BaseModel):
    """The body of every error, `application/problem+json` (RFC 9457)."""

    model_config = ConfigDict(title="Problem")

    type: str = Field(description="the kind of problem; stable", examples=["/problems/not-an-image"])
    title: str = Field(description="the kind of problem in words")
    status: int = Field(description="the HTTP status")
    detail: str = Field(description="what is wrong with this request and what to do")
    instance: str = Field(description="the id of the request, as in X-Request-Id and the log")
    index: int | None = Field(None, description="the position of the bad image or item")
    reasons: list[str] | None = Field(None, description="why the service is not ready")


# What any route may answer that reads a form, that reads JSON, and that embeds pictures.
FORM_KINDS = (
    Kind.MALFORMED_BODY,
    Kind.BODY_TOO_SLOW,
    Kind.BODY_TOO_LARGE,
    Kind.UPLOADS_FULL,
    Kind.FILE_TOO_LARGE,
    Kind.UNSUPPORTED_MEDIA_TYPE,
    Kind.NO_IMAGES,
    Kind.TOO_MANY_IMAGES,
    Kind.UNKNOWN_FIELD,
    Kind.INVALID_FIELD,
)
JSON_KINDS = (
    Kind.MALFORMED_BODY,
    Kind.BODY_TOO_SLOW,
    Kind.BODY_TOO_LARGE,
    Kind.UPLOADS_FULL,
    Kind.UNSUPPORTED_MEDIA_TYPE,
    Kind.UNKNOWN_FIELD,
    Kind.INVALID_FIELD,
)
PICTURE_KINDS = (
    Kind.IMAGE_TOO_LARGE,
    Kind.EMPTY_IMAGE,
    Kind.NOT_AN_IMAGE,
    Kind.TRUNCATED_IMAGE,
    Kind.RATE_LIMITED,
    Kind.QUEUE_FULL,
    Kind.QUEUE_TIMEOUT,
    Kind.INFERENCE_FAILED,
    Kind.NOT_READY,
)

IMAGE_KINDS = {
    "empty-image": Kind.EMPTY_IMAGE,
    "not-an-image": Kind.NOT_AN_IMAGE,
    "truncated-image": Kind.TRUNCATED_IMAGE,
    "image-too-large": Kind.IMAGE_TOO_LARGE,
}
HTTP_KINDS = {404: Kind.NOT_FOUND, 405: Kind.METHOD_NOT_ALLOWED}


def problem_of(error: Exception, index: int | None = None) -> Problem:
    """The problem that a client sees for `error`; anything not foreseen is `internal-error` and is logged."""
    match error:
        case Problem():
            return error
        case ImageError():
            return Problem(IMAGE_KINDS[error.code], str(error), index)
        case EmbeddingFailed():
            return Problem(Kind.INFERENCE_FAILED, str(error), index)
        case QueueFull():
            wait = str(error.retry_after)
            return Problem(Kind.QUEUE_FULL, str(error), headers={"Retry-After": wait})
        case TooLate():
            return Problem(Kind.QUEUE_TIMEOUT, str(error), headers={"Retry-After": RETRY_SECONDS})
        case WorkerStopped():
            return Problem(Kind.NOT_READY, str(error), headers={"Retry-After": RETRY_SECONDS})
        case RequestValidationError():
            return invalid(error, index)
        case UnknownCrop():
            return Problem(Kind.UNKNOWN_CROP, str(error))
        case UnknownIdentity():
            return Problem(Kind.UNKNOWN_IDENTITY, str(error))
        case InvalidCursor():
            return Problem(Kind.INVALID_CURSOR, str(error))
        case InvalidEmbedding():
            return Problem(Kind.INVALID_FIELD, str(error))
        case GalleryFull():
            return Problem(Kind.STORAGE_FULL, str(error))
        case GalleryUnavailable():
            return Problem(Kind.NOT_READY, str(error), headers={"Retry-After": RETRY_SECONDS})
        case GalleryDamaged():
            logger.error("the gallery is damaged", exc_info=error)
            return Problem(Kind.DAMAGED_CROP, str(error))
        case HTTPException():
            return _of_http(error)
    logger.error("a request failed", exc_info=error)
    detail = "Something failed inside the service; its log has the reason under this instance."
    return Problem(Kind.INTERNAL_ERROR, detail)


def invalid(error: ValidationError | RequestValidationError, index: int | None = None) -> Problem:
    """The first of pydantic's complaints, as a problem."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return Problem(Kind.MALFORMED_BODY, "The body is not JSON; check quotes, brackets and encoding.")
    place = shown(".".join(str(part) for part in first["loc"] if part not in ("query", "body", "path")))
    if first["type"] == "extra_forbidden":
        return Problem(Kind.UNKNOWN_FIELD, f"There is no field {place!r} here; leave it out.", index)
    message = first["msg"].removeprefix("Value error, ").rstrip(".")
    if first["type"] == "string_pattern_mismatch":  # names are the only texts with a pattern
        message = NAME_RULE
    return Problem(Kind.INVALID_FIELD, f"{place}: {message}." if place else f"{message}.", index)


def _of_http(error: HTTPException) -> Problem:
    kind = HTTP_KINDS.get(error.status_code, Kind.REQUEST_REFUSED)
    detail = {
        Kind.NOT_FOUND: "Nothing is at this address; /docs lists what there is.",
        Kind.METHOD_NOT_ALLOWED: "Use one of the methods that the Allow header names.",
    }.get(kind, str(error.detail))
    return Problem(kind, detail, headers=error.headers, status=error.status_code)


def _methods_at(request: Request) -> str:
    """Every method of the address; Starlette names those of the first route only."""

    def taken(method: str) -> bool:
        scope = {**request.scope, "method": "GET" if method == "HEAD" else method}  # HEAD arrives as GET
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)

    return ", ".join(filter(taken, METHODS))


def problem_response(problem: Problem) -> Response:
    """The answer for a problem, with its status."""
    return _ProblemResponse(problem)


class _ProblemResponse(JSONResponse):
    """Says on `request.state` which kind of problem it answers, for the log and the metrics."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.body(), problem.status, problem.headers, MEDIA_TYPE)
        self._kind = problem.kind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["problem"] = self._kind.slug
        await super().__call__(scope, receive, send)


def install_handlers(app: FastAPI) -> None:
    """Answers every exception that a route, FastAPI or Starlette raises with a problem."""

    async def handle(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException) and error.status_code == 405:
            error.headers = {**(error.headers or {}), "Allow": _methods_at(request)}
        return problem_response(problem_of(error))

    handled: tuple[type[Exception], ...] = (
        Problem,
        ImageError,
        EmbeddingFailed,
        QueueFull,
        TooLate,
        WorkerStopped,
        GalleryError,
        RequestValidationError,
        HTTPException,
    )
    for known in handled:
        app.add_exception_handler(known, handle)


KEY_KINDS = (Kind.KEY_REQUIRED, Kind.UNKNOWN_KEY, Kind.SCOPE_TOO_SMALL)


def documented(*kinds: Kind, public: bool = False) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's `responses` for a route that may answer with these kinds, and with what any route may.

    `public`: the route needs no key.
    """
    any_route = (Kind.FORBIDDEN_ORIGIN, Kind.INTERNAL_ERROR, Kind.NOT_READY, *(() if public else KEY_KINDS))
    by_status: dict[int | str, dict[str, Any]] = {}
    for kind in sorted({*kinds, *any_route}, key=lambda kind: kind.status):
        known = by_status.setdefault(
            kind.status,
            {
                "description": HTTPStatus(kind.status).phrase,
                "content": {MEDIA_TYPE: {"schema": ProblemBody.model_json_schema(), "examples": {}}},
            },
        )
        example = {"type": kind.type, "title": kind.title, "status": kind.status}
        known["content"][MEDIA_TYPE]["examples"][kind.slug] = {"value": example}
    return by_status
