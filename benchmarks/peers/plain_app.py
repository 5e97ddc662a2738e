"""The handler that one writes first: FastAPI, one `session.run` a request in its pool of threads, nothing batched.

`python -m benchmarks.peers.plain_app --model FILE --gallery FILE --threads N --port N`
"""

from __future__ import annotations

from typing import Annotated

import uvicorn
from fastapi import FastAPI, File, Response, UploadFile

from benchmarks.peers.pipeline import Options, Pipeline, options


def create_app(chosen: Options) -> FastAPI:
    app, pipeline = FastAPI(), Pipeline(chosen)

    @app.post("/{path}")
    def handle(path: str, images: Annotated[list[UploadFile], File()]) -> Response:
        ((media_type, body),) = pipeline.answer([(path, [image.file.read() for image in images])])
        return Response(body, media_type=media_type)

    @app.get("/health")
    def health() -> str:
        return "ok"

    return app


if __name__ == "__main__":
    chosen = options(__doc__)
    uvicorn.run(create_app(chosen), port=chosen.port, log_level="warning", loop="uvloop", http="httptools")
