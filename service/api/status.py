"""What runs, whether it lives, and whether it can answer."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import RedirectResponse

from service.api.problems import RETRY_SECONDS, Kind, Problem, documented
from service.api.runtime import NoParameters, RuntimeDep
from service.api.schemas import LiveResponse, ModelRef, ModelResponse, ReadyResponse

router = APIRouter(tags=["status"], dependencies=[NoParameters])

STRANGE_PARAMETER = documented(Kind.UNKNOWN_FIELD)


@router.get("/model", responses=STRANGE_PARAMETER)
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
        provider=runtime.engine.provider,
        images_per_second=round(runtime.engine.images_per_second, 1),
    )


@router.get("/livez", responses=STRANGE_PARAMETER)
async def live() -> LiveResponse:
    """200 while the process answers; restart it otherwise."""
    return LiveResponse()


@router.get("/readyz", responses=documented(Kind.UNKNOWN_FIELD, Kind.NOT_READY))
async def ready(runtime: RuntimeDep) -> ReadyResponse:
    """200 while pictures can be embedded and the gallery answers; 503 with the reasons otherwise."""
    reasons = []
    if not runtime.worker.alive:
        reasons.append(f"the inference thread is not running: {runtime.worker.error or 'it was stopped'}")
    trouble = runtime.gallery.trouble
    if trouble is not None:
        reasons.append(trouble)
    if reasons:
        detail = "The service cannot do its work; see reasons, and restart it if they do not pass."
        raise Problem(Kind.NOT_READY, detail, reasons=reasons, headers={"Retry-After": RETRY_SECONDS})
    return ReadyResponse(
        provider=runtime.engine.provider,
        images_per_second=round(runtime.engine.images_per_second, 1),
        model=ModelRef.of(runtime.info),
        crops=runtime.gallery.crop_count,
        identities=runtime.gallery.identity_count,
    )


@router.get("/", include_in_schema=False)
async def root() -> RedirectResponse:
    """Where a browser starts."""
    return RedirectResponse("/docs")
