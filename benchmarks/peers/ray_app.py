"""The same file behind Ray Serve: `serve.batch`, whose batch runs in a thread so that requests are read meanwhile.

`python -m benchmarks.peers.ray_app --model FILE --gallery FILE --threads N --port N`. One replica: two would share the
same cores and hold the model twice.
"""

import asyncio
import logging
import signal

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from benchmarks.peers.pipeline import Options, Pipeline, options, repository


@serve.deployment(max_ongoing_requests=256, ray_actor_options={"num_cpus": 1})
class ReID:
    """Both routes."""

    def __init__(self, chosen: Options) -> None:
        self._pipeline = Pipeline(chosen)
        self._answer.set_max_batch_size(chosen.max_batch)
        self._answer.set_batch_wait_timeout_s(chosen.wait)

    @serve.batch  # type: ignore[untyped-decorator]
    async def _answer(self, requests: list[tuple[str, list[bytes]]]) -> list[tuple[str, bytes]]:
        return await asyncio.to_thread(self._pipeline.answer, requests)

    async def __call__(self, request: Request) -> Response:
        if request.method == "GET":
            return Response(b"ok")
        form = await request.form()
        pictures = [await image.read() for image in form.getlist("images") if not isinstance(image, str)]
        media_type, body = await self._answer((request.url.path.strip("/"), pictures))
        return Response(body, media_type=media_type)


if __name__ == "__main__":
    chosen = options(__doc__)
    environment = {"env_vars": {"PYTHONPATH": str(repository()), "OMP_NUM_THREADS": str(chosen.threads)}}
    ray.init(
        include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False, runtime_env=environment, num_cpus=4
    )
    serve.start(http_options={"host": "127.0.0.1", "port": chosen.port})
    serve.run(ReID.bind(chosen), route_prefix="/")  # type: ignore[attr-defined]
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    ray.shutdown()
