"""The file format of an index snapshot: a file of sections, see there, with the columns and the vectors.

Numbers are little-endian.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from service.gallery.columns import CROP_ID_LENGTH, Frozen
from service.gallery.sections import CopyUnusable, SectionReader, SectionWriter, open_copy

MAGIC = b"RSGTIX02"  # the last two digits are the format's version; files of 01 may hold what was erased
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


@dataclass(frozen=True)
class Origin:
    """What a snapshot was made of: a model's embeddings [D], as of a change; `token` names this one snapshot."""

    model_sha256: str
    dim: int
    sequence: int
    token: str


def write(file: BinaryIO, origin: Origin, frozen: Frozen, vectors: Iterable[NDArray[np.float16]]) -> None:
    """Writes a snapshot; `vectors` [n, D] in all, in parts, belong to the crops of `frozen`. Raises OSError."""
    sections = SectionWriter(file)
    sections.add("vectors", (part.astype(VECTOR, copy=False).tobytes() for part in vectors))
    for name, dtype in ARRAYS.items():
        sections.add(name, [getattr(frozen, name).astype(dtype, copy=False).tobytes()])
    for name in NAMES:
        sections.add(name, [json.dumps(getattr(frozen, name)).encode()])
    sections.finish(MAGIC, {"origin": asdict(origin), "count": len(frozen.row)})


class Snapshot:
    """An open snapshot file. Everything read from it is checked; what is wrong raises CopyUnusable."""

    def __init__(self, file: BinaryIO) -> None:
        self._sections = SectionReader(file, MAGIC)
        try:
            self.origin = Origin(**self._sections.about["origin"])
            self.count: int = self._sections.about["count"]
        except (KeyError, TypeError) as error:
            raise CopyUnusable("its footer is none of a snapshot") from error
        if type(self.count) is not int or type(self.origin.dim) is not int:  # those that sizes are reckoned with
            raise CopyUnusable("its footer is none of a snapshot")

    def frozen(self) -> Frozen:
        """The columns."""
        arrays: dict[str, Any] = {
            name: np.frombuffer(b"".join(self._sections.parts(name)), dtype) for name, dtype in ARRAYS.items()
        }
        if any(len(array) != self.count for array in arrays.values()):
            raise CopyUnusable("its columns differ in length")
        return Frozen(**arrays, **{name: self._names(name) for name in NAMES})

    def _names(self, name: str) -> Any:
        try:
            return json.loads(b"".join(self._sections.parts(name)))
        except (ValueError, RecursionError) as error:
            raise CopyUnusable(f"its {name} are no names") from error

    def vectors(self) -> Iterator[NDArray[np.float16]]:
        """The vectors [n, D] in parts. Whether they are whole, only their end shows."""
        size = self.origin.dim * VECTOR.itemsize
        if self._sections.length("vectors") != self.count * size:
            raise CopyUnusable("it has not as many vectors as crops")
        for part in self._sections.parts("vectors", READ_VECTORS * size):
            yield np.frombuffer(part, VECTOR).reshape(-1, self.origin.dim)


@contextmanager
def reading(path: Path) -> Iterator[Snapshot]:
    """The snapshot at `path` for the time of the block. Raises CopyUnusable, OSError."""
    with open_copy(path) as file:
        yield Snapshot(file)
