"""What runs, whether it lives, and whether it can answer."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter, Request, Response

from service.api.answers import LiveResponse, ModelRef, ModelResponse, ReadyResponse, ReadyToStrangers
from service.api.auth import ADMIN, PUBLIC, QUERY
from service.api.problems import RETRY_SECONDS, Kind, Problem, documented
from service.api.runtime import NoParameters, RuntimeDep
from service.metrics import CONTENT_TYPE, Metrics

router = APIRouter(tags=["status"], dependencies=[NoParameters])


@router.get("/model", dependencies=[QUERY], responses=documented(Kind.UNKNOWN_FIELD))
async def model(runtime: RuntimeDep) -> ModelResponse:
    """The loaded model's own description, with its licence notice, and the provider that runs it."""
    info = runtime.info
    return ModelResponse(
        name=info.name,
        architecture=info.architecture,
        sha256=info.sha256,
        embedding_dim=info.embedding_dim,
        height=info.height,
        width=info.width,
        precision=info.precision,
        distance=info.distance,
        training_data=info.training_data,
        licence_notice=info.licence_notice,
        protocol=info.protocol,
        metrics=None if info.metrics is None else dict(info.metrics),
        match_distance_curve=info.impostor_curve is not None,
        created=info.created,
        source_revision=info.source_revision,
        file=runtime.model_file,
        provider=runtime.engine.provider,
        images_per_second=round(runtime.engine.images_per_second, 1),
    )


@router.get(
    "/metrics",
    dependencies=[ADMIN],
    response_class=Response,
    responses={
        200: {"description": "Prometheus's text format", "content": {"text/plain": {}}},
        **documented(Kind.UNKNOWN_FIELD),
    },
)
async def metrics(request: Request, runtime: RuntimeDep) -> Response:
    """What Prometheus wants to know: requests, stages, batches, queue, gallery, model and process."""
    found: Metrics = request.app.state.metrics
    return Response(await runtime.storing.run(found.exposition, runtime), media_type=CONTENT_TYPE)


@router.get("/livez", dependencies=[PUBLIC], responses=documented(Kind.UNKNOWN_FIELD, public=True))
async def live() -> LiveResponse:
    """200 while the process answers; restart it otherwise."""
    return LiveResponse()


@router.get("/readyz", dependencies=[PUBLIC], responses=documented(Kind.UNKNOWN_FIELD, Kind.NOT_READY, public=True))
async def ready(request: Request, runtime: RuntimeDep) -> ReadyResponse | ReadyToStrangers:
    """200 while pictures can be embedded and the gallery answers; 503 with the reasons otherwise.

    Where the service has keys, only who sends one is told more than the status.
    """
    known = request.state.caller is not None
    reasons = _known(runtime.troubles)
    if reasons:
        detail = "The service cannot do its work; see reasons, and restart it if they do not pass."
        if not known:
            detail, reasons = "The service cannot do its work; ask with a key, and it says why.", []
        raise Problem(Kind.NOT_READY, detail, reasons=reasons, headers={"Retry-After": RETRY_SECONDS})
    if not known:
        return ReadyToStrangers()
    return ReadyResponse(
        provider=runtime.engine.provider,
        images_per_second=round(runtime.engine.images_per_second, 1),
        model=ModelRef.of(runtime.info),
        crops=runtime.gallery.crop_count,
        identities=runtime.gallery.identity_count,
        warnings=_known(await runtime.storing.run(runtime.warnings)),
    )


def _known(troubles: Mapping[str, str | None]) -> list[str]:
    return [trouble for trouble in troubles.values() if trouble is not None]
