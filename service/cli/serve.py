"""`resight serve`: every setting as an option."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.cli.messages import stop


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on. [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on. [default: 8000]")] = None,
    model: Annotated[Path | None, typer.Option(help="The model file. [default: models/market1501-int8.onnx]")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or tensorrt. [default: auto]")] = None,
    gallery: Annotated[str | None, typer.Option(help="Where the gallery is kept. [default: sqlite:///data]")] = None,
    index: Annotated[
        str | None,
        typer.Option(help="How it is searched: auto, exact, ivf, hnsw, compressed or cagra. [default: auto]"),
    ] = None,
    store_images: Annotated[
        str | None, typer.Option(help="What is kept: none, thumbnail or original. [default: thumbnail]")
    ] = None,
    match_distance: Annotated[float | None, typer.Option(help="Distance of a match. [default: from the model]")] = None,
    max_batch: Annotated[
        int | None, typer.Option(help="Images in one run of the model. [default: 16; 64 on a GPU]")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Of inference, and of decoding. [default: all cores]")] = None,
    queue_limit: Annotated[
        int | None, typer.Option(help="Images admitted at once. [default: 4 s of the measured rate]")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error. [default: info]")] = None,
    keys_file: Annotated[
        Path | None, typer.Option(help="The API keys; `resight keys` makes them. [default: nobody needs one]")
    ] = None,
    rate_limit: Annotated[int | None, typer.Option(help="Images a minute for each key. [default: no limit]")] = None,
    retention_days: Annotated[
        int | None, typer.Option(help="Erase crops that were enrolled longer ago. [default: never]")
    ] = None,
    milvus_token_file: Annotated[
        Path | None, typer.Option(help="Holds the token for a gallery in Milvus. [default: none]")
    ] = None,
    pictures: Annotated[
        str | None, typer.Option(help="s3://BUCKET/PREFIX, for a gallery in Milvus. [default: no pictures]")
    ] = None,
    s3_endpoint: Annotated[
        str | None, typer.Option(help="The store of the pictures. [default: https://s3.amazonaws.com]")
    ] = None,
    s3_credentials_file: Annotated[
        Path | None, typer.Option(help="Its keys, JSON with access_key and secret_key. [default: none]")
    ] = None,
    allow_anonymous: Annotated[
        bool | None, typer.Option("--allow-anonymous", help="Let others than this machine in, without keys.")
    ] = None,
    allowed_hosts: Annotated[
        str | None,
        typer.Option(help="Names it is addressed by, A,B. [default: localhost where only this machine is let in]"),
    ] = None,
) -> None:
    """Start the service.

    Every option may also be an environment variable: --port 9000 and RESIGHT_PORT=9000 say the same.
    """
    chosen = {name: value for name, value in locals().items() if value is not None}
    from service.cli.serving import run  # ONNX Runtime and FAISS come with it

    problem = run(chosen)
    if problem:
        stop(problem)
