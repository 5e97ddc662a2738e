"""The first stage of a large gallery on disk, beside the snapshot, so that a restart need not build it anew.

It holds codes of the crops' vectors, so an erasure removes it, as it does the snapshot. It belongs to a model's crops,
in their order, by a checksum: those that were added since are added to what it holds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass

import faiss

from service.gallery.database import Database
from service.gallery.folder import STAGE_NAME, UNFINISHED_STAGE_NAME
from service.gallery.records import GalleryError
from service.gallery.sections import CopyUnusable, SectionReader, SectionWriter, open_copy
from service.gallery.stage import FirstStage, Kind

MAGIC = b"RSGTST02"  # the last two digits are the format's version
SECTION = "codes"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Origin:
    """What a stage was made of, by which FAISS: the first `crops` of a model's gallery [D], and their checksum.

    It was trained for a gallery of `built_for` crops.
    """

    model_sha256: str
    dim: int
    kind: Kind
    faiss: str
    built_for: int
    crops: int
    crops_crc32: int


class StageFile:
    """The file of one gallery, that of a model. What is wrong with it is logged and no harm: then there is none."""

    def __init__(self, database: Database, model_sha256: str, dim: int) -> None:
        self._database = database
        self._model_sha256 = model_sha256
        self._dim = dim
        self._path = database.folder.path / STAGE_NAME
        self._unfinished = database.folder.path / UNFINISHED_STAGE_NAME

    @property
    def exists(self) -> bool:
        """Whether there is one."""
        return self._path.exists()

    def read(self, kind: Kind, crc32: Callable[[int], int | None]) -> tuple[FirstStage, int] | None:
        """The stage, and for how many crops it was trained; None where there is none of this kind and these crops.

        `crc32` is the checksum of as many of the gallery's first crops.
        """
        try:
            with open_copy(self._path) as file:
                sections = SectionReader(file, MAGIC)
                origin = Origin(**sections.about["origin"])
                if type(origin.built_for) is not int or type(origin.crops) is not int or origin.crops < 0:
                    raise CopyUnusable("its footer is none of a stage")
                if origin.kind != kind:
                    _log.info("the first stage on disk is of %s, %s is wanted: it is built anew", origin.kind, kind)
                    return None
                if origin != self._origin(kind, origin.built_for, origin.crops, crc32(origin.crops)):
                    raise CopyUnusable("it is of another model or FAISS, or not of these crops")
                stage = FirstStage.read(kind, sections.checked(SECTION))
                if (stage.dim, len(stage)) != (self._dim, origin.crops):
                    raise CopyUnusable("its codes are not of as many numbers or crops as it says")
        except FileNotFoundError:
            return None
        except (CopyUnusable, OSError, ValueError, LookupError, TypeError, RuntimeError, MemoryError) as error:
            _log.warning("the first stage on disk is of no use (%s); it is built anew", error)
            return None
        return stage, origin.built_for

    def _origin(self, kind: Kind, built_for: int, crops: int, crc32: int | None) -> Origin:
        checksum = -1 if crc32 is None else crc32
        return Origin(self._model_sha256, self._dim, kind, faiss.__version__, built_for, crops, checksum)

    def moment(self) -> int | None:
        """Now, for `write`; to be asked before vectors are read. None while the gallery takes no writes."""
        try:  # on the writer's thread: there no erasure is between the removal of copies and the index
            return self._database.write(lambda _: self._database.folder.removals)
        except GalleryError:
            return None

    def write(self, stage: FirstStage, crops_crc32: int, built_for: int, moment: int | None) -> None:
        """Keeps a stage of crops with this checksum, unless some were erased since `moment`."""
        folder = self._database.folder
        origin = self._origin(stage.kind, built_for, len(stage), crops_crc32)
        try:
            with folder.new_file(UNFINISHED_STAGE_NAME) as file:
                if folder.removals != moment:  # from here on, an erasure removes the file
                    raise CopyUnusable("crops may have been erased meanwhile")
                sections = SectionWriter(file)
                stage.write(sections.begin(SECTION))
                sections.finish(MAGIC, {"origin": asdict(origin)})
            self._unfinished.rename(self._path)
            folder.sync()
        except (CopyUnusable, OSError, RuntimeError, MemoryError) as error:
            _log.info("the first stage was not kept on disk: %s", error)
            for path in (self._unfinished, self._path):  # what is there is of an earlier stage
                with suppress(OSError):
                    path.unlink()
