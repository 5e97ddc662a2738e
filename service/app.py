"""The application: what is built at start, in which order, and how it ends."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from importlib.metadata import version

import anyio.to_thread
from fastapi import FastAPI
from starlette.middleware import Middleware

from service.api import attention, description, embed, erasures, gallery, identities, query, session, status
from service.api.auth import Door, Doorkeeper, RateLimit
from service.api.barrier import ProblemBarrier
from service.api.headers import HeadAsGet, SecurityHeaders
from service.api.limits import MAX_IMAGES, BodyLimit, QueueGuard, Uploads
from service.api.origins import OriginGuard
from service.api.problems import install_handlers
from service.api.runtime import Pool, Runtime
from service.api.searching import Searches
from service.console import pages
from service.galleries import milvus_token, open_audit, open_gallery
from service.gallery.audit import Audit
from service.gallery.contract import AnyAudit, AnyGallery
from service.gallery.gallery import Gallery
from service.gallery.retention import Retention, RetentionThread
from service.inference.batching import BatchWorker
from service.inference.engine import OnnxEngine
from service.inference.loading import load_engine
from service.inference.model import ModelError, ModelInfo, file_stamp, read_model
from service.keys import KeyRing
from service.metrics import Metrics
from service.settings import Settings, available_cores, is_loopback
from service.telemetry import RequestLog, configure_logging

logger = logging.getLogger(__name__)

QUEUE_SECONDS = 4
FULL_REQUESTS = 4
STORING_THREADS = 64  # writes that wait together share one commit

DESCRIPTION = (
    "Finds the same person again across cameras: enrol crops of persons with `POST /gallery`, then ask"
    " who a crop shows with `POST /query`. Every error is `application/problem+json` (RFC 9457) with a"
    " stable `type`. The plain description of this API is at `/openapi.json`."
)


def create_app(settings: Settings) -> FastAPI:
    """The service as an ASGI application.

    Model, gallery and keys are opened when it starts up, which raises ModelError, EngineError, GalleryError
    or KeysError with the reason when it must not serve.
    """
    configure_logging(settings.log_level)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        stack = ExitStack()
        app.state.runtime = await anyio.to_thread.run_sync(stack.enter_context, running(settings))
        try:
            yield
        finally:
            await anyio.to_thread.run_sync(stack.close)
            logger.info("stopped")

    uploads = Uploads()
    metrics = Metrics(uploads)
    rooms = (query, embed, gallery, attention, identities, erasures, session, status, description, pages)
    routes = [route for room in rooms for route in room.router.routes]
    app = FastAPI(
        title="Resight",
        version=version("resight"),
        description=DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        openapi_url=None,  # `description` has it
        middleware=[
            Middleware(RequestLog, count=metrics.count),
            Middleware(SecurityHeaders),
            Middleware(
                OriginGuard,
                local_only=is_loopback(settings.host) and settings.keys_file is None,
                names=settings.host_names,
            ),
            Middleware(HeadAsGet),
            Middleware(Doorkeeper, routes=routes),
            Middleware(QueueGuard, routes=routes),
            Middleware(BodyLimit, uploads=uploads),
            Middleware(ProblemBarrier),
        ],
    )
    app.state.metrics = metrics
    install_handlers(app)
    for room in rooms:
        app.include_router(room.router)
    return app


@contextmanager
def running(settings: Settings) -> Iterator[Runtime]:
    """Loads and verifies the model, opens the gallery and starts the inference thread; ends them in turn.

    Raises ModelError, EngineError, GalleryError or KeysError, and then leaves nothing open. Blocks at both ends.
    """
    threads = settings.effective_threads
    _warn(settings)
    door = _door(settings)
    milvus_token(settings)  # what cannot be used is told before the model is loaded
    stamp = file_stamp(settings.model)
    engine = _load_engine(settings, threads)
    with ExitStack() as stack:
        opened = stack.enter_context(open_gallery(settings, engine.info))
        audit = stack.enter_context(open_audit(settings, opened))
        retention = _retention(settings, opened, audit)
        if retention is not None:
            stack.callback(RetentionThread(retention, settings.gallery_folder).close)
        reload = partial(_reload_engine, settings, threads, engine.info)
        worker = BatchWorker(engine, reload, engine.max_batch, settings.queue_limit or _queue_limit(engine))
        worker.start()
        stack.callback(worker.stop)
        _log_start(engine, worker, opened)
        searches = Searches(opened)
        stack.callback(searches.close)
        pools = Pool(threads, "decode"), Pool(threads, "compute"), Pool(STORING_THREADS, "store")
        for pool in pools:
            stack.callback(pool.close)
        yield Runtime(settings, engine.info, worker, searches, opened, audit, retention, *pools, door, stamp)


def _warn(settings: Settings) -> None:
    """Of what may be wanted, but would be a surprise later."""
    threads, cores = settings.effective_threads, available_cores()
    if threads > cores:
        logger.warning("RESIGHT_THREADS=%d is more than the cores here (%d): threads wait for them", threads, cores)
    if (upkeep := settings.upkeep_warning) is not None:
        logger.warning(upkeep)
    if settings.milvus_address is not None and settings.pictures is None and settings.store_images != "none":
        logger.warning(
            "RESIGHT_PICTURES is not set: no picture is kept, so that `resight export` has none, and the gallery "
            "cannot be embedded by another model; RESIGHT_STORE_IMAGES=none says that this is wanted"
        )


def _door(settings: Settings) -> Door:
    keys = None if settings.keys_file is None else KeyRing(settings.keys_file)
    rates = None if settings.rate_limit is None else RateLimit(settings.rate_limit)
    return Door(keys, rates)


def _load_engine(settings: Settings, threads: int) -> OnnxEngine:
    """The file's content is given up with the return: the engine has its own copy."""
    return load_engine(read_model(settings.model), settings.device, threads, settings.max_batch, settings.cache_folder)


def _reload_engine(settings: Settings, threads: int, loaded: ModelInfo) -> OnnxEngine:
    """The same model again, for the engine that broke; raises ModelError, EngineError."""
    file = read_model(settings.model)
    if file.info.sha256 != loaded.sha256:
        raise ModelError(f"{settings.model} is another model by now; restart the service to take it.")
    return load_engine(file, settings.device, threads, settings.max_batch, settings.cache_folder)


def _retention(settings: Settings, opened: AnyGallery, audit: AnyAudit) -> Retention | None:
    """What erases old crops; of a gallery with many replicas, `resight maintain` does, run now and then."""
    if settings.retention_days is None:
        return None
    if isinstance(opened, Gallery) and isinstance(audit, Audit):
        return opened.retention(audit, settings.retention_days)
    return None


def _queue_limit(engine: OnnxEngine) -> int:
    """Images that the engine embeds in a few seconds, and never less than a few full requests."""
    return max(int(QUEUE_SECONDS * engine.images_per_second), FULL_REQUESTS * MAX_IMAGES)


def _log_start(engine: OnnxEngine, worker: BatchWorker, opened: AnyGallery) -> None:
    info = engine.info
    logger.info(
        "ready",
        extra={
            "model": info.name,
            "sha256": info.sha256,
            "licence_notice": info.licence_notice,
            "provider": engine.provider,
            "max_batch": engine.max_batch,
            "images_per_second": round(engine.images_per_second, 1),
            "queue_limit": worker.queue_limit,
            "crops": opened.crop_count,
        },
    )
