"""`/gallery/{crop_id}/attention.png`: an enrolled crop under the model's attention."""

from __future__ import annotations

import logging

import numpy as np
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray

from service.api.auth import QUERY
from service.api.pictures import canonical, embed_pictures
from service.api.problems import Kind, Problem, documented, unless_problem
from service.api.query import received_attention
from service.api.runtime import NoParameters, Runtime, RuntimeDep, while_connected
from service.inference.images import ImageError
from service.inference.overlay import draw_attention

logger = logging.getLogger(__name__)

router = APIRouter(prefix="/gallery", tags=["gallery"])


@router.get(
    "/{crop_id}/attention.png",
    dependencies=[QUERY, NoParameters],
    response_class=Response,
    responses={
        200: {"description": "The stored picture under the model's attention", "content": {"image/png": {}}},
        **documented(
            Kind.UNKNOWN_CROP,
            Kind.NO_STORED_IMAGE,
            Kind.UNKNOWN_FIELD,
            Kind.RATE_LIMITED,
            Kind.QUEUE_FULL,
            Kind.QUEUE_TIMEOUT,
            Kind.INFERENCE_FAILED,
            Kind.DAMAGED_CROP,
            Kind.NOT_READY,
        ),
    },
)
async def attention(crop_id: str, request: Request, runtime: RuntimeDep) -> Response:
    """The stored picture with the attention that each place receives, dark to bright; computed anew each time."""
    stored = await runtime.storing.run(runtime.gallery.image, canonical(crop_id))
    if stored is None:
        detail = "This crop was enrolled without keeping its picture; delete it and enrol it again to keep one."
        raise Problem(Kind.NO_STORED_IMAGE, detail)
    drawn = await while_connected(request, _drawn(request, runtime, stored))
    return Response(drawn, media_type="image/png")


async def _drawn(request: Request, runtime: Runtime, stored: bytes) -> bytes:
    found = await embed_pictures(request, runtime, {0: stored}, attention=True, skip_bad=True)
    request.state.timings.update(found.timings)
    picture = found.outcomes[0]
    if isinstance(picture, Problem) and picture.kind is not Kind.INFERENCE_FAILED:
        raise _damaged(picture)
    weights = unless_problem(picture).attention
    assert weights is not None  # asked for
    received = received_attention([weights], runtime.info)
    return await runtime.decoding.run(_draw, stored, np.array(received.weights[0], np.float32), received.h, received.w)


def _draw(stored: bytes, weights: NDArray[np.float32], h: int, w: int) -> bytes:
    try:
        return draw_attention(stored, weights.reshape(h, w))
    except ImageError as error:
        raise _damaged(error) from error


def _damaged(cause: Exception) -> Problem:
    logger.error("a stored picture is damaged", exc_info=cause)
    return Problem(Kind.DAMAGED_CROP, "The stored picture is damaged; delete this crop and enrol its picture again.")
