"""What `resight doctor` looks at of a service's own: its model, where that runs, its gallery, its keys."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from service.cli.checks import Check, State
from service.cli.items import count

if TYPE_CHECKING:
    from service.inference.model import ModelFile
    from service.settings import Settings

MILVUS_SECONDS = 5.0


def model_and_provider(settings: Settings) -> tuple[ModelFile | None, list[Check]]:
    """The file obeys its contract; it loads on the device that is set, really runs there, and passes its self-test."""
    from service.inference.engine import EngineError
    from service.inference.loading import load_engine
    from service.inference.model import ModelError, read_model

    try:
        file = read_model(settings.model)
    except ModelError as error:
        return None, [Check("model", State.FAIL, str(error), "Name a model file with RESIGHT_MODEL.")]
    said = f"{file.info.name} (sha256 {file.info.sha256[:12]}…), {settings.model}"
    checks = [Check("model", State.OK, said)]
    try:
        engine = load_engine(file, settings.device, settings.effective_threads, settings.max_batch)
    except EngineError as error:
        advice = "Set RESIGHT_DEVICE=cpu, or see docs/operations.md, `On a GPU`."
        return file, [*checks, Check("provider", State.FAIL, str(error), advice)]
    said = f"{engine.provider}, self-test passed, {engine.images_per_second:,.0f} images/s"
    return file, [*checks, _provider(settings.device, engine.provider, said)]


def _provider(device: str, provider: str, said: str) -> Check:
    import onnxruntime

    from service.inference.engine import CPU, CUDA

    if device == "auto" and provider == CPU and CUDA in onnxruntime.get_available_providers():
        return Check(
            "provider",
            State.WARN,
            f"{said}; the GPU's ONNX Runtime is installed and does not run",
            "Say `resight doctor --device cuda`, which names what is missing.",
        )
    return Check("provider", State.OK, said)


def keys(settings: Settings) -> Iterator[Check]:
    """The key file can be read."""
    from service.keys import KeysError, read_keys

    if settings.keys_file is None:
        return
    try:
        found = read_keys(settings.keys_file)
    except KeysError as error:
        yield Check("keys", State.FAIL, str(error), "Make it with `resight keys create`, or give this user the right.")
        return
    said = f"{len(found)} in {settings.keys_file}"
    if found:
        yield Check("keys", State.OK, said)
    else:
        yield Check("keys", State.WARN, said, "Nobody can use the service: make a key with `resight keys create`.")


def gallery(settings: Settings, model_sha256: str | None) -> Iterator[Check]:
    """Where the gallery is kept can be used, and what is there belongs to this model."""
    if settings.milvus_address is not None:
        yield milvus(settings, model_sha256)
        return
    folder = settings.gallery_folder
    yield data_folder(folder)
    if folder.is_dir():
        yield space(folder)
        yield contents(folder, model_sha256)


def data_folder(folder: Path) -> Check:
    """It is there and can be written, or can be made; and whether a service has it."""
    if not folder.exists():
        above = next(one for one in folder.absolute().parents if one.exists())
        if above.is_dir() and os.access(above, os.W_OK | os.X_OK):
            return Check("data folder", State.OK, f"{folder} is made at the first start")
        return Check(
            "data folder",
            State.FAIL,
            f"{folder} is not there, and {above} cannot be written",
            "Give this user the right to, or choose another RESIGHT_GALLERY.",
        )
    if not folder.is_dir() or not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return Check(
            "data folder",
            State.FAIL,
            f"{folder} is no folder that this user can read and write",
            "Give this user the right to, or choose another RESIGHT_GALLERY.",
        )
    held = _held(folder)
    return Check("data folder", State.OK, f"{folder}{', in use by a running service' if held else ''}")


def _held(folder: Path) -> bool:
    """Whether another process owns the folder; asked for a moment with a lock that only an owner keeps out."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def space(folder: Path) -> Check:
    """There is room to enrol."""
    from service.gallery.space import free_bytes, shortage

    problem = shortage(folder)
    if problem is None:
        return Check("disk space", State.OK, f"{(free_bytes(folder) or 0) / 2**30:,.1f} GiB free")
    return Check("disk space", State.FAIL, problem, "Free some: enrolling is refused until then; queries go on.")


def contents(folder: Path, model_sha256: str | None) -> Check:
    """The database can be read by this release, and its embeddings are this model's."""
    from service.gallery.database import DATABASE_NAME
    from service.gallery.readonly import reading_beside
    from service.gallery.records import GalleryError
    from service.gallery.schema import MIGRATIONS

    if not (folder / DATABASE_NAME).exists():
        return Check("gallery", State.OK, "none yet")
    try:
        with reading_beside(folder) as connection:
            schema = connection.execute("PRAGMA user_version").fetchone()[0]
            owner = connection.execute("SELECT model_name, model_sha256 FROM gallery").fetchone() if schema else None
            crops = connection.execute("SELECT count(*) FROM crops").fetchone()[0] if schema else 0
    except GalleryError as error:
        return Check("gallery", State.FAIL, str(error), "Restore a backup, or use the release that wrote it.")
    said = f"{count(crops, 'crop')}, schema version {schema}"
    if owner is not None and model_sha256 not in (None, owner[1]):
        return Check(
            "gallery",
            State.FAIL,
            f"{said}, of the model {owner[0]} (sha256 {owner[1][:12]}…)",
            "Set RESIGHT_MODEL to that model's file, or embed the gallery anew with `resight reembed`.",
        )
    if schema < len(MIGRATIONS):
        return Check("gallery", State.OK, f"{said}, brought to {len(MIGRATIONS)} at the next start")
    return Check("gallery", State.OK, said)


def milvus(settings: Settings, model_sha256: str | None) -> Check:
    """Milvus answers, and its collection is there or can be made."""
    from service.galleries import milvus_token
    from service.gallery.records import GalleryError
    from service.gallery_milvus.collections import model_of
    from service.gallery_milvus.server import Server

    address = settings.milvus_address
    assert address is not None
    try:
        server = Server(address, milvus_token(settings))
        try:
            server.call("list_collections", MILVUS_SECONDS)
            owner = model_of(server, address.collection)
        finally:
            server.close()
    except GalleryError as error:
        return Check("milvus", State.FAIL, str(error), f"Milvus must answer at {address.host}:{address.port}.")
    except Exception as error:  # what Milvus refuses comes as it is
        return Check("milvus", State.FAIL, str(error), "Look at RESIGHT_MILVUS_TOKEN_FILE and at Milvus's log.")
    if owner is None:
        return Check("milvus", State.OK, f"answers; the collection {address.collection} is made at the first start")
    if model_sha256 not in (None, owner.sha256):
        return Check(
            "milvus",
            State.FAIL,
            f"{address.collection} is of the model {owner.name} (sha256 {owner.sha256[:12]}…)",
            "Set RESIGHT_MODEL to that model's file, or name another collection.",
        )
    return Check("milvus", State.OK, f"answers; {address.collection} is of the model {owner.name}")
