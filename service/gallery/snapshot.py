"""The file format of an index snapshot: columns and vectors, each with a checksum, and a footer that says so.

One pass writes it: the sections, then the footer (JSON), then the footer's length, its CRC-32 and the magic. A file
that was cut off therefore ends without footer. Numbers are little-endian.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from service.gallery.columns import CROP_ID_LENGTH, Frozen

MAGIC = b"RSGTIX01"  # the last two digits are the format's version
TAIL = struct.Struct("<QI8s")
VECTOR = np.dtype("<f2")
ARRAYS = {
    "row": np.dtype("<i8"),
    "crop_id": np.dtype(f"S{CROP_ID_LENGTH}"),
    "identity": np.dtype("<i4"),
    "camera": np.dtype("<i4"),
    "captured_at": np.dtype("<i8"),
    "searchable": np.dtype("?"),
}
NAMES = ("identities", "cameras")
READ_VECTORS = 4096


class SnapshotUnusable(Exception):
    """The file is no whole snapshot, or not the one that is wanted; the message says why."""


@dataclass(frozen=True)
class Origin:
    """What a snapshot was made of: a model's embeddings [D], as of a change; `token` names this one snapshot."""

    model_sha256: str
    dim: int
    sequence: int
    token: str


def write(file: BinaryIO, origin: Origin, frozen: Frozen, vectors: Iterable[NDArray[np.float16]]) -> None:
    """Writes a snapshot; `vectors` [n, D] in all, in parts, belong to the crops of `frozen`. Raises OSError."""
    sections: dict[str, dict[str, int]] = {}

    def section(name: str, parts: Iterable[bytes | memoryview]) -> None:
        length = crc = 0
        for part in parts:
            file.write(part)
            length += len(part)
            crc = zlib.crc32(part, crc)
        sections[name] = {"length": length, "crc32": crc}

    section("vectors", (part.astype(VECTOR, copy=False).tobytes() for part in vectors))
    for name, dtype in ARRAYS.items():
        section(name, [getattr(frozen, name).astype(dtype, copy=False).tobytes()])
    for name in NAMES:
        section(name, [json.dumps(getattr(frozen, name)).encode()])
    footer = json.dumps({"origin": asdict(origin), "count": len(frozen.row), "sections": sections}).encode()
    file.write(footer)
    file.write(TAIL.pack(len(footer), zlib.crc32(footer), MAGIC))


class Snapshot:
    """An open snapshot file. Everything read from it is checked; what is wrong raises SnapshotUnusable."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        footer = _footer(file)
        self.origin = Origin(**footer["origin"])
        self.count: int = footer["count"]
        self._sections: dict[str, tuple[int, int, int]] = {}
        start = 0
        for name, section in footer["sections"].items():
            self._sections[name] = (start, section["length"], section["crc32"])
            start += section["length"]

    def frozen(self) -> Frozen:
        """The columns."""
        arrays: dict[str, Any] = {
            name: np.frombuffer(b"".join(self._parts(name, 1 << 24)), dtype) for name, dtype in ARRAYS.items()
        }
        if any(len(array) != self.count for array in arrays.values()):
            raise SnapshotUnusable("its columns differ in length")
        names = {name: json.loads(b"".join(self._parts(name, 1 << 24))) for name in NAMES}
        return Frozen(**arrays, **names)

    def vectors(self) -> Iterator[NDArray[np.float16]]:
        """The vectors [n, D] in parts. Whether they are whole, only their end shows."""
        size = self.origin.dim * VECTOR.itemsize
        if self._sections["vectors"][1] != self.count * size:
            raise SnapshotUnusable("it has not as many vectors as crops")
        for part in self._parts("vectors", READ_VECTORS * size):
            yield np.frombuffer(part, VECTOR).reshape(-1, self.origin.dim)

    def _parts(self, name: str, size: int) -> Iterator[bytes]:
        start, length, expected = self._sections[name]
        self._file.seek(start)
        crc = 0
        while length:
            part = self._file.read(min(size, length))
            if not part:
                raise SnapshotUnusable("it is cut off")
            crc = zlib.crc32(part, crc)
            length -= len(part)
            yield part
        if crc != expected:
            raise SnapshotUnusable(f"its {name} are damaged")


@contextmanager
def reading(path: Path) -> Iterator[Snapshot]:
    """The snapshot at `path` for the time of the block. Raises SnapshotUnusable, OSError."""
    with path.open("rb") as file:
        yield Snapshot(file)


def _footer(file: BinaryIO) -> dict[str, Any]:
    size = file.seek(0, os.SEEK_END)
    if size < TAIL.size:
        raise SnapshotUnusable("it is cut off")
    file.seek(size - TAIL.size)
    length, crc, magic = TAIL.unpack(file.read(TAIL.size))
    if magic != MAGIC:
        raise SnapshotUnusable("it is cut off, or no snapshot that this release knows")
    if length > size - TAIL.size:
        raise SnapshotUnusable("its footer is damaged")
    file.seek(size - TAIL.size - length)
    footer = file.read(length)
    if zlib.crc32(footer) != crc:
        raise SnapshotUnusable("its footer is damaged")
    content: dict[str, Any] = json.loads(footer)
    if sum(section["length"] for section in content["sections"].values()) + length + TAIL.size != size:
        raise SnapshotUnusable("its length is wrong")
    return content
