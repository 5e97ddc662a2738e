"""`POST /embed`: the embeddings alone, for those who keep them elsewhere."""

from __future__ import annotations

import io

import numpy as np
from fastapi import APIRouter, Request, Response

from service.api.forms import multipart_body, read_form
from service.api.limits import MAX_IMAGES
from service.api.pictures import embed_pictures
from service.api.problems import FORM_KINDS, PICTURE_KINDS, documented
from service.api.runtime import NoParameters, RuntimeDep, while_connected
from service.api.schemas import EmbedResponse, ModelRef

router = APIRouter(tags=["embed"])

NPY = "application/x-npy"


@router.post(
    "/embed",
    response_model=EmbedResponse,
    dependencies=[NoParameters],
    responses={
        200: {"description": "Unit vectors, float32 [n, D] as .npy", "content": {NPY: {}}},
        **documented(*FORM_KINDS, *PICTURE_KINDS),
    },
    openapi_extra=multipart_body(None, MAX_IMAGES),
)
async def embed(request: Request, runtime: RuntimeDep) -> EmbedResponse | Response:
    """Embeds 1 to 64 images and stores nothing. `Accept: application/x-npy` answers a NumPy file."""
    form = await read_form(request, frozenset(), MAX_IMAGES)
    found = await while_connected(request, embed_pictures(runtime, form.images))
    embeddings = np.stack([picture.embedding for picture in found.all_or_first_problem()])
    request.state.timings.update(found.timings)
    if NPY in request.headers.get("accept", ""):
        file = io.BytesIO()
        np.save(file, embeddings)
        headers = {"X-Model-Sha256": runtime.info.sha256}
        return Response(file.getvalue(), media_type=NPY, headers=headers)
    return EmbedResponse(embeddings=embeddings.tolist(), model=ModelRef.of(runtime.info))
