"""`resight migrate`: the gallery in a folder becomes one in Milvus."""

from __future__ import annotations

from typing import Annotated

import typer

from service.cli.items import count
from service.cli.jobrunning import NAMED_CROPS, Gallery, job, settings_of, tell
from service.cli.messages import SOME_FAILED, say, stop
from service.cli.options import Json


def migrate(
    to: Annotated[str, typer.Argument(metavar="MILVUS_URL", help="milvus://HOST:PORT/COLLECTION")],
    gallery: Gallery = None,
    index: Annotated[
        str | None, typer.Option(help="Of a new collection: exact, hnsw, ivf or compressed. [default: exact]")
    ] = None,
    drop_pictures: Annotated[
        bool, typer.Option("--drop-pictures", help="Move the rest where there is no place for pictures.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Move the gallery in a folder into a collection of Milvus; stop the service first.

    The folder stays as it is. Stopped or killed, the same command goes on. At last counts and checksums are compared.
    Exit code: 0 all well, 1 damaged crops were left out, 2 it is not done.
    """
    with job("migrating", "crops") as progress:
        from service.galleries import open_milvus
        from service.jobs.migrate import migrate as move
        from service.jobs.migrate import model_of, require_room_for_pictures
        from service.settings import FOR_MILVUS

        folder = settings_of(FOR_MILVUS, gallery=gallery).gallery_folder
        chosen = settings_of(gallery=to, index=index)
        if chosen.milvus_address is None:
            stop(f"{to} is not in Milvus; say milvus://HOST:PORT/COLLECTION.")
        model = model_of(folder)
        if chosen.pictures is None and not drop_pictures:
            require_room_for_pictures(folder)
        with open_milvus(chosen, chosen.milvus_address, model) as target:
            done = move(folder, target, with_pictures=not drop_pictures, progress=progress)
    for crop_id in done.damaged[:NAMED_CROPS]:
        say(f"{crop_id}: its embedding is damaged")
    tell(
        as_json,
        done,
        f"{count(done.written, 'crop')} and {count(done.pictures, 'picture')} migrated, {done.known:,} there already;"
        f" both have {count(done.contents.crops, 'crop')} with checksum {done.contents.checksum[:16]}",
    )
    if done.damaged:
        raise typer.Exit(SOME_FAILED)
