"""Erasing many crops at once, over Milvus: some at a time, and the receipt when nothing is left.

Interrupted, some are erased and there is no receipt: the same request again does the rest. Milvus hides at once what is
deleted, and removes its bytes when it compacts the segments that hold them.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime

from service.gallery.changes import to_micros
from service.gallery.erasures import Receipt, Selection
from service.gallery_milvus.crops import AT_ONCE, Crops
from service.gallery_milvus.rows import KEY, LABELS, NO_TIME, crop_of, marked_against
from service.gallery_milvus.server import SCANNED, among, quoted


class MilvusErasures:
    """Erasure. Thread-safe."""

    def __init__(self, crops: Crops) -> None:
        self._crops = crops

    def erase(self, asked: Selection) -> Receipt:
        """Erases all selected crops, as many as there were; none is no error. Raises GalleryUnavailable."""
        if asked.identity is not None:
            for some in self._crops.matching(marked_against(asked.identity)):
                gone = {asked.identity}
                self._crops.write(
                    [
                        replace(
                            one, crop=replace(one.crop, not_identity=tuple(sorted({*one.crop.not_identity} - gone)))
                        )
                        for one in some
                    ]
                )
        erased = sum(self.erase_where(which) for which in _expressions(asked))
        if asked.identity is not None:
            self._crops.unlist_names([asked.identity])
        return Receipt(
            receipt_id=str(uuid.uuid4()),
            erased_at=datetime.now(UTC),
            asked=asked,
            crops=erased,
            wal_truncated=False,
        )

    def erase_where(self, which: str) -> int:
        """Erases what the expression lets through, some at a time; how many they were."""
        erased, server, collection = 0, self._crops.server, self._crops.collections.crops
        while rows := server.rows(collection, which, [KEY, *LABELS], most=SCANNED, strong=True):
            self._crops.erase([crop_of(row) for row in rows])
            erased += len(rows)
        return erased


def _expressions(asked: Selection) -> list[str]:
    if asked.identity is not None:
        return [f"identity == {quoted(asked.identity)}"]
    if asked.crop_ids is not None:
        ids = sorted(asked.crop_ids)
        return [among(KEY, ids[start : start + AT_ONCE]) for start in range(0, len(ids), AT_ONCE)]
    if asked.before is None:
        return [f"camera == {quoted(asked.camera or '')}"]
    until = to_micros(asked.before)
    return [f"camera == {quoted(asked.camera or '')} && captured_at < {until} && captured_at > {NO_TIME}"]
