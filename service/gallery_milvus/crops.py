"""Reading and writing whole crops in Milvus, and the names of their identities.

A name is listed after the crops that carry it are stored, and leaves the list once no crop has it; who takes it away
looks again afterwards. So a name that a crop has is never missing for long, whatever replicas do at the same time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from service.gallery.records import Crop, UnknownCrop
from service.gallery_milvus.collections import NAME, UNUSED, Collections
from service.gallery_milvus.pictures import Pictures
from service.gallery_milvus.rows import EVERYTHING, KEY, VECTOR, crop_of, is_sound, row_of, vector_of
from service.gallery_milvus.server import Row, Server, among, quoted

AT_ONCE = 500  # crops with embeddings in one call: 4 MB at D = 2048


@dataclass(frozen=True, eq=False)
class Stored:
    """A crop with all that belongs to it; `vector` [D] is as stored, or `mended`: in the place of a damaged one."""

    crop: Crop
    vector: NDArray[np.float16]
    seq: int
    mended: bool = False


class Crops:
    """The crops of a gallery. Thread-safe."""

    def __init__(self, server: Server, collections: Collections, pictures: Pictures) -> None:
        self.server, self.collections, self.pictures = server, collections, pictures
        self._numbering = threading.Lock()
        self._last = 0

    def next_seq(self) -> int:
        """A number for a new crop, above all that this process gave: microseconds since 1970, or a little more."""
        with self._numbering:
            self._last = max(self._last + 1, time.time_ns() // 1000)
            return self._last

    def find(
        self, crop_ids: Sequence[str], given: Mapping[str, NDArray[np.float16]] = MappingProxyType({})
    ) -> dict[str, Stored]:
        """Those that are there, by id, with all that was acknowledged.

        A crop whose embedding is damaged has the one that is `given` for it; raises GalleryDamaged where none is.
        """
        found = {}
        for row in self._rows(crop_ids, EVERYTHING):
            mended = row[KEY] in given and not is_sound(row)
            vector = given[row[KEY]] if mended else vector_of(row)
            found[row[KEY]] = Stored(crop_of(row), vector, int(row["seq"]), mended)
        return found

    def sound(self, crop_ids: Sequence[str]) -> set[str]:
        """Those that are there with an embedding that is not damaged."""
        return {row[KEY] for row in self._rows(crop_ids, ["crc32", VECTOR]) if is_sound(row)}

    def _rows(self, crop_ids: Sequence[str], fields: Sequence[str]) -> Iterator[Row]:
        for start in range(0, len(crop_ids), AT_ONCE):
            which = among(KEY, crop_ids[start : start + AT_ONCE])
            yield from self.server.rows(self.collections.crops, which, [KEY, *fields], strong=True)

    def one(self, crop_id: str) -> Stored:
        """Raises UnknownCrop."""
        found = self.find([crop_id])
        if crop_id not in found:
            raise UnknownCrop(crop_id)
        return found[crop_id]

    def matching(self, which: str) -> Iterator[list[Stored]]:
        """All that the expression lets through, some at a time, in the order of their ids."""
        for rows in self.server.scan(self.collections.crops, KEY, which, EVERYTHING, at_once=AT_ONCE):
            yield [Stored(crop_of(row), vector_of(row), int(row["seq"])) for row in rows]

    def write(self, stored: Sequence[Stored]) -> None:
        """Stores crops, new ones and known ones, and lists their names."""
        rows = [row_of(one.crop, one.vector, one.seq) for one in stored]
        for start in range(0, len(rows), AT_ONCE):
            self.server.upsert(self.collections.crops, rows[start : start + AT_ONCE])
        self.list_names(one.crop.identity for one in stored)

    def erase(self, crops: Sequence[Crop]) -> None:
        """Deletes pictures, then crops, then the names that nobody has any more."""
        ids = [crop.crop_id for crop in crops]
        self.pictures.delete(ids)
        for start in range(0, len(ids), AT_ONCE):
            self.server.delete(self.collections.crops, KEY, ids[start : start + AT_ONCE])
        self.unlist_names(crop.identity for crop in crops)

    def list_names(self, names: Iterable[str | None]) -> None:
        """Puts identities on the list."""
        rows = [{NAME: name, UNUSED: [0.0, 0.0]} for name in sorted({name for name in names if name})]
        self.server.upsert(self.collections.names, rows)

    def unlist_names(self, names: Iterable[str | None]) -> None:
        """Takes those off the list that no crop has."""
        gone = [name for name in sorted({name for name in names if name}) if not self._carried(name)]
        if gone:
            self.server.delete(self.collections.names, NAME, gone)
            self.list_names(name for name in gone if self._carried(name))

    def _carried(self, name: str) -> bool:
        which = f"identity == {quoted(name)}"
        return bool(self.server.rows(self.collections.crops, which, [KEY], most=1, strong=True))
