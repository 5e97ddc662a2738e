"""The requests of the HTTP contract, built and not sent. No input or output over HTTP.

`enrol_call(…)` and its kin give a `Call`, which knows how its answer is read (`service.client.answers`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypeVar
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from service.client.answers import (
    Crop,
    Enrolment,
    Page,
    Ranking,
    Readiness,
    ServedModel,
    read_attention_map,
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
from service.client.images import Images, files_of
from service.client.members import Archived, read_archived
from service.client.sending import Call

Moment = datetime | str
Many = str | Sequence[str]
Vector = Sequence[float] | NDArray[np.floating[Any]]
Consistency = Literal["bounded", "strong"]
Value = TypeVar("Value")


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
        items=None if items is None else json.dumps([labels_of(item) for item in items]),
        on_error=on_error,
    )
    return Call("POST", "/gallery", read_enrolment, form=form, images=files_of(images))


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
    consistency: Consistency | None = None,
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
        consistency=consistency,
        **_filters(cameras, exclude_cameras, since, until, identity),
    )
    if images is not None:
        return Call("POST", "/query", read_ranking, form=_as_form(options), images=files_of(images))
    probe: dict[str, object] = _given(
        crop_ids=None if crop_ids is None else _many(crop_ids) or [],
        embedding=None if embedding is None else np.asarray(embedding, np.float64).tolist(),
        model_sha256=model_sha256,
    )
    return Call("POST", "/query", read_ranking, json=probe | options)


def embed_call(images: Images) -> Call[NDArray[np.float32]]:
    """POST /embed, answered as NPY."""
    return Call("POST", "/embed", read_embeddings, images=files_of(images), accept="application/x-npy")


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
    consistency: Consistency | None = None,
) -> Call[Page]:
    """GET /gallery: one page of at most `limit` crops; see `Resight.crops`."""
    params: dict[str, str | list[str]] = _given(
        unidentified="true" if unidentified else None,
        limit=str(limit),
        cursor=cursor,
        consistency=consistency,
        **_filters(cameras, exclude_cameras, since, until, identity),
    )
    return Call("GET", "/gallery", read_page, params=params)


def archive_call(archive: bytes) -> Call[Archived]:
    """POST /gallery with a tar archive; what of it is stored already is a `duplicate` when it is sent again."""
    return Call("POST", "/gallery", read_archived, archive=archive, accept="application/x-ndjson")


def crop_call(crop_id: str, *, consistency: Consistency | None = None) -> Call[Crop]:
    """GET /gallery/{crop_id}."""
    return Call("GET", f"/gallery/{segment(crop_id)}", read_crop, params=consistent(consistency))


def image_call(crop_id: str, *, consistency: Consistency | None = None) -> Call[bytes]:
    """GET /gallery/{crop_id}/image, answered as JPEG."""
    path = f"/gallery/{segment(crop_id)}/image"
    accept = "image/jpeg, application/problem+json"
    return Call("GET", path, read_image, params=consistent(consistency), accept=accept)


def attention_call(crop_id: str) -> Call[bytes]:
    """GET /gallery/{crop_id}/attention.png."""
    path = f"/gallery/{segment(crop_id)}/attention.png"
    return Call("GET", path, read_attention_map, accept="image/png, application/problem+json")


def delete_call(crop_id: str) -> Call[None]:
    """DELETE /gallery/{crop_id}; a second one would answer 404."""
    return Call("DELETE", f"/gallery/{segment(crop_id)}", read_nothing, repeatable=False)


def model_call() -> Call[ServedModel]:
    """GET /model."""
    return Call("GET", "/model", read_model)


def ready_call() -> Call[Readiness]:
    """GET /readyz; 503 is an answer here, no failure."""
    return Call("GET", "/readyz", read_readiness, accepted=frozenset({200, 503}), patient=False)


def segment(name: str) -> str:
    """The name as one segment of a path; `.` and `..`, which are legal names, would be taken for steps."""
    return name.replace(".", "%2E") if name in (".", "..") else quote(name, safe="")


def consistent(consistency: Consistency | None) -> dict[str, str | list[str]]:
    """The parameter that says how new what a read sees must be."""
    return {} if consistency is None else {"consistency": consistency}


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


def labels_of(labels: Mapping[str, object]) -> dict[str, object]:
    """Labels as JSON takes them; None is left out."""
    return {
        name: rfc3339(value) if isinstance(value, datetime) else value
        for name, value in labels.items()
        if value is not None
    }
