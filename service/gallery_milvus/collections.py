"""The two collections of a gallery: its crops, and the names of its identities; and which model they belong to.

The model stands in the description of the crops' collection, which Milvus sets when it makes it and never changes: of
two replicas that start at once, one makes it, and the other finds it made.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.gallery.records import GalleryDamaged, GalleryTooNew, ModelMismatch
from service.gallery.store import Model
from service.gallery_milvus.rows import KEY, VECTOR
from service.gallery_milvus.server import SETUP_SECONDS, Server

FORMAT = 1
NAME = "identity"  # the primary key of the names
UNUSED = "unused"  # a collection of Milvus 2.3 needs a vector

# RESIGHT_INDEX -> Milvus's index and how it is built, for a collection that is made.
BUILT: Mapping[str, tuple[str, Mapping[str, int]]] = {
    "auto": ("FLAT", {}),
    "exact": ("FLAT", {}),
    "hnsw": ("HNSW", {"M": 32, "efConstruction": 256}),
    "ivf": ("IVF_FLAT", {"nlist": 4096}),
    "compressed": ("IVF_SQ8", {"nlist": 4096}),
}
EXACT = frozenset({"FLAT", "BIN_FLAT"})

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Collections:
    """The names of both collections, the index over the embeddings, and the audit log's secret."""

    crops: str
    names: str
    index: str
    secret: bytes

    @property
    def exact(self) -> bool:
        """Whether a search compares with every crop."""
        return self.index in EXACT


@dataclass(frozen=True)
class _Description:
    model: Model
    secret: bytes


def open_collections(server: Server, crops: str, model: Model, index: str) -> Collections:
    """Finds or makes the collections for `model`; an empty gallery adopts it.

    Nothing is made or dropped where one of them is somebody else's. An index other than the one asked for stays, with a
    line in the log. Raises ModelMismatch, GalleryTooNew, GalleryDamaged, GalleryUnavailable.
    """
    names = f"{crops}_identities"
    found = _description(server, crops)
    _require_fields(server, names, _names_schema(server))
    if found is not None:
        _require_fields(server, crops, _crops_schema(server, found.model.dim))
    if found is not None and found.model.sha256 != model.sha256:
        _load(server, crops, VECTOR, index)
        if server.count(crops, strong=True):
            raise ModelMismatch(
                f"The gallery {crops} in Milvus was made by the model {found.model.name} (sha256 "
                f"{found.model.sha256[:12]}…) and cannot be searched with {model.name} (sha256 "
                f"{model.sha256[:12]}…): serve it with its own model, or export it and import it into a new "
                "collection with this one."
            )
        for collection in (crops, names):
            server.call("drop_collection", SETUP_SECONDS, collection)
        found = None
    if found is None:
        found = _make_crops(server, crops, model)
    if not server.call("has_collection", SETUP_SECONDS, names):
        _create(server, names, _names_schema(server))
    kind = _load(server, crops, VECTOR, index)
    _load(server, names, UNUSED, "exact")
    if index != "auto" and kind != BUILT[index][0]:
        _log.warning("RESIGHT_INDEX=%s is for a new collection; %s has the index %s and keeps it", index, crops, kind)
    return Collections(crops, names, kind, found.secret)


def model_of(server: Server, crops: str) -> Model | None:
    """The model that a gallery belongs to, None where there is no gallery. Raises as `open_collections` does."""
    found = _description(server, crops)
    return None if found is None else found.model


def _description(server: Server, crops: str) -> _Description | None:
    if not server.call("has_collection", SETUP_SECONDS, crops):
        return None
    text = server.call("describe_collection", SETUP_SECONDS, crops)["description"]
    try:
        content = json.loads(text)
        if int(content["resight"]) > FORMAT:
            raise GalleryTooNew(f"The collection {crops} was made by a newer release; serve it with that one.")
        model = Model(str(content["model_sha256"]), str(content["model_name"]), int(content["dim"]))
        return _Description(model, bytes.fromhex(content["audit_secret"]))
    except (ValueError, KeyError, TypeError) as error:
        raise _not_ours(crops) from error


def _require_fields(server: Server, collection: str, schema: Any) -> None:
    """Raises GalleryDamaged for a collection that is there, and has other fields."""
    there = server.call("has_collection", SETUP_SECONDS, collection)
    if there and _fields(server.call("describe_collection", SETUP_SECONDS, collection)) != _fields(schema.to_dict()):
        raise _not_ours(collection)


def _fields(described: Mapping[str, Any]) -> set[tuple[str, int, int]]:
    """Names, types and, of vectors, dimensions."""
    return {(one["name"], int(one["type"]), int(one.get("params", {}).get("dim", 0))) for one in described["fields"]}


def _not_ours(collection: str) -> GalleryDamaged:
    return GalleryDamaged(f"The collection {collection} in Milvus is not one of Resight; choose another name.")


def _make_crops(server: Server, crops: str, model: Model) -> _Description:
    content = {
        "resight": FORMAT,
        "model_sha256": model.sha256,
        "model_name": model.name,
        "dim": model.dim,
        "audit_secret": secrets.token_hex(32),
    }
    _create(server, crops, _crops_schema(server, model.dim, json.dumps(content)))
    made = _description(server, crops)
    if made is None or made.model.sha256 != model.sha256:
        raise ModelMismatch(f"Another service has just made the gallery {crops} in Milvus for another model.")
    return made


def _crops_schema(server: Server, dim: int, description: str = "") -> Any:
    types = server.library.DataType
    schema = server.library.MilvusClient.create_schema(
        auto_id=False, enable_dynamic_field=False, description=description
    )
    schema.add_field(KEY, types.VARCHAR, max_length=36, is_primary=True)
    schema.add_field(VECTOR, types.FLOAT_VECTOR, dim=dim)
    for name, length in (("identity", 128), ("camera", 128), ("track", 128), ("meta", 65_535)):
        schema.add_field(name, types.VARCHAR, max_length=length)
    for name in ("crc32", "seq", "captured_at", "enrolled_at"):
        schema.add_field(name, types.INT64)
    schema.add_field("marks", types.JSON)
    return schema


def _names_schema(server: Server) -> Any:
    types = server.library.DataType
    schema = server.library.MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field(NAME, types.VARCHAR, max_length=128, is_primary=True)
    schema.add_field(UNUSED, types.FLOAT_VECTOR, dim=2)
    return schema


def _create(server: Server, collection: str, schema: Any) -> None:
    try:
        server.call("create_collection", SETUP_SECONDS, collection, schema=schema, consistency_level="Bounded")
    except server.library.MilvusException:
        _log.info("another replica made the collection %s at the same time", collection)


def _load(server: Server, collection: str, field: str, index: str) -> str:
    """Loads a collection, and which index it has; who was killed while making it may have left it without."""
    kind, parameters = BUILT[index]
    if not server.call("list_indexes", SETUP_SECONDS, collection, field):
        indexes = server.library.MilvusClient.prepare_index_params()
        indexes.add_index(field, index_type=kind, metric_type="L2", index_name=field, params=dict(parameters))
        try:
            server.call("create_index", SETUP_SECONDS, collection, indexes)
        except server.library.MilvusException:
            _log.info("another replica made the index of %s at the same time", collection)
    server.call("load_collection", SETUP_SECONDS, collection)
    (name,) = server.call("list_indexes", SETUP_SECONDS, collection, field)
    return str(server.call("describe_index", SETUP_SECONDS, collection, name)["index_type"])
