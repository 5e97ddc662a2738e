"""What a person decides about crops and identities, over Milvus: what stops half-way goes on when it is repeated."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from service.gallery.cursors import decode_cursor, encode_cursor
from service.gallery.identities import (
    LISTED,
    Correction,
    Identity,
    IdentityPage,
    Renamed,
    corrected,
    corrected_marks,
)
from service.gallery.records import Crop, UnknownIdentity
from service.gallery_milvus.collections import NAME
from service.gallery_milvus.crops import Crops, Stored
from service.gallery_milvus.rows import KEY, LABELS, crop_of, hit_of, labels_of, marked_against
from service.gallery_milvus.server import SCANNED, Row, among, quoted


class MilvusIdentities:
    """Decisions and lists. Thread-safe."""

    def __init__(self, crops: Crops) -> None:
        self._crops = crops
        self._server, self._collections = crops.server, crops.collections

    def page(self, limit: int, cursor: str | None, *, strong: bool = False) -> IdentityPage:
        """Up to `limit` >= 1 identities by name. Raises InvalidCursor; ValueError for another limit."""
        if limit < 1:
            raise ValueError("limit must be at least 1: empty pages never come to an end")
        after = "" if cursor is None else decode_cursor(LISTED, cursor)
        found: list[Identity] = []
        while len(found) <= limit:
            wanted = limit + 1 - len(found)
            rows = self._server.rows(
                self._collections.names, f"{NAME} > {quoted(after)}", [NAME], most=wanted, strong=strong
            )
            names = [str(row[NAME]) for row in rows]
            found += self._summaries(names, strong)
            if len(names) < wanted:
                break
            after = names[-1]
        listed = tuple(found[:limit])
        return IdentityPage(listed, encode_cursor(LISTED, listed[-1].identity) if len(found) > limit else None)

    def get(self, identity: str, *, strong: bool = False) -> Identity:
        """Raises UnknownIdentity."""
        for summary in self._summaries([identity], strong):
            return summary
        raise UnknownIdentity(identity)

    def _summaries(self, names: list[str], strong: bool) -> list[Identity]:
        """What the crops of these identities say, in their order; without those that have none."""
        if not names:
            return []
        rows: dict[str, list[Row]] = {}
        last = ""
        fields = [KEY, "identity", "camera", "captured_at", "seq"]
        while True:
            which = f"{among('identity', names)} && {KEY} > {quoted(last)}"
            part = self._server.rows(self._collections.crops, which, fields, most=SCANNED, strong=strong)
            for row in part:
                rows.setdefault(row["identity"], []).append(row)
            if len(part) < SCANNED:
                return [_summary(name, rows[name]) for name in names if name in rows]
            last = part[-1][KEY]

    def rename(self, identity: str, new: str) -> Renamed:
        """Gives all crops of `identity`, and the marks against it, the name `new`; onto a known name, it merges them.

        Interrupted, some crops have the new name and some the old one, until it is repeated. Raises UnknownIdentity.
        """
        own = f"identity == {quoted(identity)}"
        crops = self._collections.crops
        if not self._server.count(crops, own, strong=True):
            raise UnknownIdentity(identity)
        if new == identity:
            return Renamed(new, 0, False)
        merged = bool(self._server.count(crops, f"identity == {quoted(new)}", strong=True))
        self._crops.list_names([new])
        moved = 0
        for some in self._crops.matching(f"{marked_against(identity)} && identity != {quoted(identity)}"):
            self._crops.write([_marked(one, one.crop.identity, identity, new) for one in some])
        for some in self._crops.matching(own):
            self._crops.write([_marked(one, new, identity, new) for one in some])
            moved += len(some)
        self._crops.unlist_names([identity])
        return Renamed(new, moved, merged)

    def correct(self, crop_id: str, correction: Correction) -> Crop:
        """Changes what is said about a crop, which is returned as it is then. Raises UnknownCrop."""
        before = self._crops.one(crop_id)
        labels = corrected(labels_of(before.crop), correction)
        marks = corrected_marks(before.crop.not_identity, labels.identity, correction.not_identity)
        after = replace(before.crop, **vars(labels), not_identity=marks)
        self._crops.write([replace(before, crop=after)])
        if before.crop.identity != after.identity:
            self._crops.unlist_names([before.crop.identity])
        return after

    def ruled_out(self, crop_ids: Iterable[str], *, strong: bool = False) -> frozenset[str]:
        """The identities that at least one of these crops is marked not to be."""
        wanted = list(crop_ids)
        rows = (
            self._server.rows(self._collections.crops, among(KEY, wanted), [KEY, *LABELS], strong=strong)
            if wanted
            else []
        )
        return frozenset(name for row in rows for name in crop_of(row).not_identity)


def _marked(one: Stored, identity: str | None, old: str, new: str) -> Stored:
    """The crop under the name `identity`, its marks against `old` being against `new`, and none against itself."""
    marks = {new if name == old else name for name in one.crop.not_identity}
    return replace(one, crop=replace(one.crop, identity=identity, not_identity=tuple(sorted(marks - {identity}))))


def _summary(identity: str, rows: list[Row]) -> Identity:
    hits = [hit_of(row) for row in rows]
    times = [hit.captured_at for hit in hits if hit.captured_at is not None]
    first = min(rows, key=lambda row: (int(row["seq"]), str(row[KEY])))
    return Identity(
        identity=identity,
        crops=len(rows),
        cameras=tuple(sorted({hit.camera for hit in hits if hit.camera is not None})),
        first_captured_at=min(times, default=None),
        last_captured_at=max(times, default=None),
        crop_id=str(first[KEY]),
    )
