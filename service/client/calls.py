"""The requests of the HTTP contract, built and not sent, and when to send one again. No input or output over HTTP.

`enrol_call(…)` and its kin give a `Call`, which knows how its answer is read (`service.client.answers`). A client over
any transport, blocking or not, only sends: `call.arguments()`, `retry_pause`, `accept`, `call.parse`.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageOps

from service.client.answers import (
    Crop,
    Enrolment,
    Page,
    Problem,
    Ranking,
    Readiness,
    ResightError,
    ServedModel,
    Unreachable,
    problem_of,
    read_crop,
    read_embeddings,
    read_enrolment,
    read_image,
    read_model,
    read_nothing,
    read_page,
    read_ranking,
    read_readiness,
)

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 60.0  # seconds between attempts; a longer Retry-After is not waited for
LONGEST_BACKOFF = 8.0

Answer = TypeVar("Answer")
Image = bytes | str | os.PathLike[str] | Pillow.Image
Images = Image | Sequence[Image]
Moment = datetime | str
Many = str | Sequence[str]
Vector = Sequence[float] | NDArray[np.floating[Any]]
Value = TypeVar("Value")


@dataclass(frozen=True)
class Call(Generic[Answer]):
    """One request, built and not sent, and how its answer is read.

    `accepted` are the statuses that `parse` reads; `repeatable`, sent twice it does and says the same;
    `patient`, a busy or absent service is waited for.
    """

    method: str
    path: str
    parse: Callable[[httpx.Response], Answer]
    params: Mapping[str, str | list[str]] = field(default_factory=dict)
    form: Mapping[str, str | list[str]] = field(default_factory=dict)
    json: Mapping[str, object] | None = None
    images: Sequence[tuple[str, bytes]] = ()
    accept: str = "application/json"
    accepted: frozenset[int] = frozenset({200, 201, 204})
    repeatable: bool = True
    patient: bool = True

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of httpx's `request`, of its blocking and of its async client alike."""
        files = [("images", (name, data, "application/octet-stream")) for name, data in self.images]
        return {
            "method": self.method,
            "url": self.path,
            "params": dict(self.params),
            "data": dict(self.form) or None,
            "files": files or None,
            "json": self.json,
            "headers": {"Accept": self.accept},
        }


def enrol_call(
    images: Images,
    *,
    identity: str | None = None,
    camera: str | None = None,
    captured_at: Moment | None = None,
    track: str | None = None,
    meta: Mapping[str, object] | None = None,
    items: Sequence[Mapping[str, object]] | None = None,
    on_error: str | None = None,
) -> Call[Enrolment]:
    """POST /gallery; see `Resight.enrol`."""
    form: dict[str, str | list[str]] = _given(
        identity=identity,
        camera=camera,
        captured_at=rfc3339(captured_at),
        track=track,
        meta=None if meta is None else json.dumps(meta),
        items=None if items is None else json.dumps([_item(item) for item in items]),
        on_error=on_error,
    )
    return Call("POST", "/gallery", read_enrolment, form=form, images=_files(images))


def query_call(
    images: Images | None = None,
    *,
    crop_ids: Many | None = None,
    embedding: Vector | None = None,
    model_sha256: str | None = None,
    top_k: int = 10,
    crops_per_identity: int = 5,
    cameras: Many = (),
    exclude_cameras: Many = (),
    since: Moment | None = None,
    until: Moment | None = None,
    identity: str | None = None,
    max_distance: float | None = None,
    exact: bool = False,
    explain: bool = False,
) -> Call[Ranking]:
    """POST /query; see `Resight.query`."""
    if (images is None) + (crop_ids is None) + (embedding is None) != 2:
        raise ValueError("a query needs either images, or crop_ids, or an embedding")
    options: dict[str, object] = _given(
        top_k=top_k,
        crops_per_identity=crops_per_identity,
        max_distance=max_distance,
        exact=exact or None,
        explain=explain or None,
        **_filters(cameras, exclude_cameras, since, until, identity),
    )
    if images is not None:
        return Call("POST", "/query", read_ranking, form=_as_form(options), images=_files(images))
    probe: dict[str, object] = _given(
        crop_ids=None if crop_ids is None else _many(crop_ids) or [],
        embedding=None if embedding is None else np.asarray(embedding, np.float64).tolist(),
        model_sha256=model_sha256,
    )
    return Call("POST", "/query", read_ranking, json=probe | options)


def embed_call(images: Images) -> Call[NDArray[np.float32]]:
    """POST /embed, answered as NPY."""
    return Call("POST", "/embed", read_embeddings, images=_files(images), accept="application/x-npy")


def page_call(
    *,
    cameras: Many = (),
    exclude_cameras: Many = (),
    since: Moment | None = None,
    until: Moment | None = None,
    identity: str | None = None,
    unidentified: bool = False,
    limit: int = 1000,
    cursor: str | None = None,
) -> Call[Page]:
    """GET /gallery: one page of at most `limit` crops; see `Resight.crops`."""
    params: dict[str, str | list[str]] = _given(
        unidentified="true" if unidentified else None,
        limit=str(limit),
        cursor=cursor,
        **_filters(cameras, exclude_cameras, since, until, identity),
    )
    return Call("GET", "/gallery", read_page, params=params)


def crop_call(crop_id: str) -> Call[Crop]:
    """GET /gallery/{crop_id}."""
    return Call("GET", f"/gallery/{quote(crop_id, safe='')}", read_crop)


def image_call(crop_id: str) -> Call[bytes]:
    """GET /gallery/{crop_id}/image, answered as JPEG."""
    path = f"/gallery/{quote(crop_id, safe='')}/image"
    return Call("GET", path, read_image, accept="image/jpeg, application/problem+json")


def delete_call(crop_id: str) -> Call[None]:
    """DELETE /gallery/{crop_id}; a second one would answer 404."""
    return Call("DELETE", f"/gallery/{quote(crop_id, safe='')}", read_nothing, repeatable=False)


def model_call() -> Call[ServedModel]:
    """GET /model."""
    return Call("GET", "/model", read_model)


def ready_call() -> Call[Readiness]:
    """GET /readyz; 503 is an answer here, no failure."""
    return Call("GET", "/readyz", read_readiness, accepted=frozenset({200, 503}), patient=False)


def retry_pause(call: Call[Any], outcome: httpx.Response | httpx.TransportError, attempt: int) -> float | None:
    """Seconds to wait before sending `call` again after its `attempt`-th (from 0) outcome; None: do not.

    Sent again are a busy or starting service (429, 503: after `Retry-After` where it says so), a refused
    connection, and a connection that broke under a call that may be repeated.
    """
    if not call.patient:
        return None
    backoff = min(FIRST_PAUSE * 2.0**attempt, LONGEST_BACKOFF)
    if isinstance(outcome, httpx.Response):
        if outcome.status_code not in (429, 503):
            return None
        after = outcome.headers.get("Retry-After", "")
        pause = float(after) if after.isascii() and after.isdigit() else backoff
        return pause if pause <= LONGEST_PAUSE else None
    if isinstance(outcome, httpx.ConnectError):
        return backoff
    broke = isinstance(outcome, httpx.NetworkError | httpx.RemoteProtocolError)
    return backoff if broke and call.repeatable else None


def accept(call: Call[Any], outcome: httpx.Response | httpx.TransportError, base_url: str) -> httpx.Response:
    """The response when it is an answer to `call`. Raises ResightError when it is a problem or none came."""
    if isinstance(outcome, httpx.Response):
        if outcome.status_code in call.accepted:
            return outcome
        raise ResightError(problem_of(outcome))
    if isinstance(outcome, httpx.TimeoutException) and not isinstance(outcome, httpx.ConnectTimeout):
        raise ResightError(_unanswered(f"{base_url} did not answer in time.")) from outcome
    if isinstance(outcome, httpx.ConnectError | httpx.ConnectTimeout):
        raise Unreachable(_unanswered(f"Nothing answers at {base_url}.")) from outcome
    raise Unreachable(_unanswered(f"The connection to {base_url} broke: {outcome}.")) from outcome


def _unanswered(detail: str) -> Problem:
    return Problem("about:blank", "No answer", None, detail)


def _given(**fields: Value | None) -> dict[str, Value]:
    return {name: value for name, value in fields.items() if value is not None}


def _as_form(options: Mapping[str, object]) -> dict[str, str | list[str]]:
    """Numbers and truth as JSON writes them, text and lists of text as they are."""
    return {name: value if isinstance(value, str | list) else json.dumps(value) for name, value in options.items()}


def _filters(
    cameras: Many, exclude_cameras: Many, since: Moment | None, until: Moment | None, identity: str | None
) -> dict[str, str | list[str] | None]:
    return {
        "camera": _many(cameras),
        "exclude_camera": _many(exclude_cameras),
        "since": rfc3339(since),
        "until": rfc3339(until),
        "identity": identity,
    }


def _many(values: Many) -> list[str] | None:
    return [values] if isinstance(values, str) else list(values) or None


def rfc3339(moment: Moment | None) -> str | None:
    """RFC 3339. Raises ValueError for a datetime without time zone: it would mean another moment elsewhere."""
    if not isinstance(moment, datetime):
        return moment
    if moment.tzinfo is None:
        raise ValueError(f"{moment!r} has no time zone")
    return moment.isoformat()


def _item(labels: Mapping[str, object]) -> dict[str, object]:
    return {
        name: rfc3339(value) if isinstance(value, datetime) else value
        for name, value in labels.items()
        if value is not None
    }


def _files(images: Images) -> list[tuple[str, bytes]]:
    """Name and bytes of each image; one image may stand for a list of one."""
    many = [images] if isinstance(images, bytes | str | os.PathLike | Pillow.Image) else images
    return [_file(image, index) for index, image in enumerate(many)]


def _file(image: Image, index: int) -> tuple[str, bytes]:
    if isinstance(image, bytes):
        return f"image-{index}", image
    if isinstance(image, Pillow.Image):
        return f"image-{index}.png", _png(image)
    path = Path(image)
    return path.name, path.read_bytes()


def _png(image: Pillow.Image) -> bytes:
    """Lossless, upright whatever its EXIF orientation says."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
        upright = upright.convert("RGB")
    buffer = io.BytesIO()
    upright.save(buffer, "PNG")
    return buffer.getvalue()
