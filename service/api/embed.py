"""`POST /embed`: the embeddings alone, for those who keep them elsewhere."""

from __future__ import annotations

import io

import numpy as np
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray

from service.api.answers import EmbedResponse, ModelRef, json_response
from service.api.auth import QUERY
from service.api.forms import multipart_body, read_form
from service.api.limits import MAX_IMAGES
from service.api.pictures import embed_pictures
from service.api.problems import FORM_KINDS, PICTURE_KINDS, documented
from service.api.runtime import NoParameters, RuntimeDep, while_connected
from service.inference.model import ModelInfo

router = APIRouter(tags=["embed"])

NPY = "application/x-npy"


@router.post(
    "/embed",
    response_model=EmbedResponse,
    dependencies=[QUERY, NoParameters],
    responses={
        200: {"description": "Unit vectors, float32 [n, D] as .npy", "content": {NPY: {}}},
        **documented(*FORM_KINDS, *PICTURE_KINDS),
    },
    openapi_extra=multipart_body(None, MAX_IMAGES),
)
async def embed(request: Request, runtime: RuntimeDep) -> Response:
    """Embeds 1 to 64 images and stores nothing. `Accept: application/x-npy` answers a NumPy file."""
    form = await read_form(request, frozenset(), MAX_IMAGES)
    found = await while_connected(request, embed_pictures(request, runtime, dict(enumerate(form.images))))
    embeddings = np.stack([picture.embedding for picture in found.all_or_first_problem()])
    request.state.timings.update(found.timings)
    answer = _as_npy if NPY in request.headers.get("accept", "") else _as_json
    return await runtime.decoding.run(answer, embeddings, runtime.info)


def _as_npy(embeddings: NDArray[np.float32], info: ModelInfo) -> Response:
    file = io.BytesIO()
    np.save(file, embeddings)
    return Response(file.getvalue(), media_type=NPY, headers={"X-Model-Sha256": info.sha256})


def _as_json(embeddings: NDArray[np.float32], info: ModelInfo) -> Response:
    return json_response(EmbedResponse(embeddings=embeddings.tolist(), model=ModelRef.of(info)))
