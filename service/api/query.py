"""`POST /query`: who in the gallery is this?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray

from service.api.answers import AttentionOut, QueryResponse, json_response
from service.api.auth import QUERY
from service.api.forms import JSON, multipart_body, parse_fields, read_form, read_json
from service.api.limits import MAX_QUERY_IMAGES, media_type
from service.api.pictures import canonical, embed_pictures
from service.api.problems import FORM_KINDS, PICTURE_KINDS, Kind, Problem, documented
from service.api.runtime import NoParameters, Runtime, RuntimeDep, while_connected
from service.api.schemas import REPEATABLE, QueryBody, QueryForm
from service.gallery.audit import Act
from service.gallery.records import Answer, Probe
from service.inference.model import ModelInfo

AUDITED_MATCHES = 10  # of an answer, whose pseudonyms the audit log has
SMALL_ANSWER = 20  # matches that are written sooner than another thread is asked to

router = APIRouter(tags=["query"])


@router.post(
    "/query",
    response_model=QueryResponse,
    dependencies=[QUERY, NoParameters],
    responses=documented(*FORM_KINDS, *PICTURE_KINDS, Kind.MODEL_MISMATCH, Kind.UNKNOWN_CROP, Kind.DAMAGED_CROP),
    openapi_extra=multipart_body(QueryForm, MAX_QUERY_IMAGES, json_body=QueryBody),
)
async def query(request: Request, runtime: RuntimeDep) -> Response:
    """Ranks the identities of the gallery by their distance to one person.

    1 to 16 images of that person, or as JSON some crops of the gallery or an embedding, make one query.
    """
    if media_type(request.headers) == JSON:
        body = await read_json(request, QueryBody)
        return await while_connected(request, _by_json(request, runtime, body))
    form = await read_form(request, frozenset(QueryForm.model_fields), MAX_QUERY_IMAGES)
    options = parse_fields(QueryForm, form.fields, REPEATABLE)
    return await while_connected(request, _by_images(request, runtime, form.images, options))


async def _by_images(request: Request, runtime: Runtime, files: tuple[bytes, ...], options: QueryForm) -> Response:
    runtime.searches.require_room(options.exact)
    found = await embed_pictures(request, runtime, dict(enumerate(files)), attention=options.explain)
    pictures = found.all_or_first_problem()
    request.state.timings.update(found.timings)
    probe = np.stack([picture.embedding for picture in pictures])
    maps = [picture.attention for picture in pictures if picture.attention is not None]
    return await _answer(request, runtime, Probe(probe, options.options()), maps)


async def _by_json(request: Request, runtime: Runtime, body: QueryBody) -> Response:
    runtime.searches.require_room(body.exact)
    options = body.options()
    if body.embedding is not None:
        probe = unit_vector(body.embedding, body.model_sha256 or "", runtime.info)[None]
    else:
        ids = [canonical(crop_id) for crop_id in body.crop_ids or []]
        gallery, strong = runtime.gallery, options.strong
        probe = await runtime.storing.run(partial(gallery.embeddings, ids, strong=strong))
        ruled_out = await runtime.storing.run(partial(gallery.identities.ruled_out, ids, strong=strong))
        options = replace(options, filters=replace(options.filters, exclude_identities=ruled_out))
    return await _answer(request, runtime, Probe(probe, options), [])


async def _answer(request: Request, runtime: Runtime, probe: Probe, maps: Sequence[NDArray[np.float32]]) -> Response:
    started = time.perf_counter()
    answer = await runtime.searches.answer(probe)
    request.state.timings["search"] = (time.perf_counter() - started) * 1e3
    if len(answer.matches) > SMALL_ANSWER:
        return await runtime.computing.run(_response, request, runtime, probe, answer, maps)
    return _response(request, runtime, probe, answer, maps)


def _response(
    request: Request, runtime: Runtime, probe: Probe, answer: Answer, maps: Sequence[NDArray[np.float32]]
) -> Response:
    """Writes the answer, and the audit log's line about it."""
    named = [match.identity or match.crop.crop_id for match in answer.matches[:AUDITED_MATCHES]]
    runtime.audit.note(Act("query", request.state.actor, named, len(probe.embeddings)))
    response = QueryResponse.of(answer, runtime.info, request.state.timings)
    if maps:
        response.attention = received_attention(maps, runtime.info)
    return json_response(response)


def unit_vector(values: list[float], model_sha256: str, info: ModelInfo) -> NDArray[np.float32]:
    """A client's embedding as float32 [D] of unit length; raises Problem when it cannot be one."""
    if model_sha256.lower() != info.sha256:
        detail = f"The gallery's embeddings are of model {info.sha256}; embed the picture with that one."
        raise Problem(Kind.MODEL_MISMATCH, detail)
    if len(values) != info.embedding_dim:
        detail = f"embedding: has {len(values)} numbers, this model's have {info.embedding_dim}."
        raise Problem(Kind.INVALID_FIELD, detail)
    vector = np.array(values, np.float64)
    largest = np.abs(vector).max()
    if largest == 0:
        raise Problem(Kind.INVALID_FIELD, "embedding: all numbers are zero, which points nowhere.")
    vector /= largest  # so that squares neither overflow nor vanish
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def received_attention(maps: Sequence[NDArray[np.float32]], info: ModelInfo) -> AttentionOut:
    """Of each image's attention [L, L], row j = where position j looks: the mean weight that each position receives."""
    weights = [attention.mean(axis=0).tolist() for attention in maps]
    return AttentionOut(h=info.map_height, w=info.map_width, weights=weights)
