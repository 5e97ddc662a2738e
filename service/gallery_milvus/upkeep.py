"""What one job does now and then for all replicas of a gallery: retention, the list of names, and the bytes erased."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from service.gallery.audit import Act
from service.gallery.changes import to_micros
from service.gallery.contract import AnyAudit
from service.gallery.retention import PastRetention
from service.gallery_milvus.collections import NAME
from service.gallery_milvus.crops import Crops
from service.gallery_milvus.rows import KEY, LABELS, crop_of
from service.gallery_milvus.server import SCANNED, WRITE_SECONDS

ACTOR = "retention"


@dataclass(frozen=True)
class Names:
    """What was put right about the list of identities."""

    added: int
    removed: int


def past_retention(crops: Crops, before: datetime) -> PastRetention:
    """How many crops were enrolled before then. Raises GalleryUnavailable."""
    server, collection = crops.server, crops.collections.crops
    old = server.count(collection, _older(before), strong=True)
    return PastRetention(before, old, server.count(collection, strong=True))


def expire(crops: Crops, audit: AnyAudit, before: datetime) -> int:
    """Erases what was enrolled before then, some at a time, each in the audit log; how many crops that were."""
    erased, server, collection = 0, crops.server, crops.collections.crops
    while rows := server.rows(collection, _older(before), [KEY, *LABELS], most=SCANNED, strong=True):
        old = [crop_of(row) for row in rows]
        audit.perform(Act("expire", ACTOR, [crop.crop_id for crop in old], len(old)), crops.erase, old)
        erased += len(old)
    return erased


def put_names_right(crops: Crops) -> Names:
    """Lists the identities that crops have, and no others: what a replica that was killed may have left undone.

    It reads the names of all crops. Raises GalleryUnavailable.
    """
    server, collections = crops.server, crops.collections
    listed = {str(row[NAME]) for rows in server.scan(collections.names, NAME, "", []) for row in rows}
    parts = server.scan(collections.crops, KEY, 'identity != ""', ["identity"])
    carried = {str(row["identity"]) for rows in parts for row in rows}
    missing, left_over = sorted(carried - listed), sorted(listed - carried)
    for start in range(0, len(missing), SCANNED):
        crops.list_names(missing[start : start + SCANNED])
    crops.unlist_names(left_over)
    return Names(len(missing), len(left_over))


def compact(crops: Crops) -> None:
    """Asks Milvus to write its segments anew without what was erased, which it does in the background."""
    for collection in (crops.collections.crops, crops.collections.names):
        crops.server.call("compact", WRITE_SECONDS, collection)


def _older(before: datetime) -> str:
    return f"enrolled_at < {to_micros(before)}"
