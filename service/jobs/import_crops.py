"""`resight import`: what `resight export` wrote, into a gallery of any model: the pictures are embedded anew."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from service.gallery.audit import Act
from service.gallery.contract import AnyAudit, AnyGallery
from service.gallery.records import NewCrop
from service.inference.engine import Engine
from service.inference.images import ImageError, Kept, decode_and_keep
from service.jobs.archive import MANIFEST_NAME, ArchivedCrop, ArchiveHead
from service.jobs.embedding import embed
from service.jobs.job import JobError, Progress, unheard

MAX_LINE = 2**24  # bytes for a crop in the manifest: 128,000 marks of the longest names, far more than people set
CHUNK = 64  # crops that are enrolled together
MAX_PICTURE_BYTES = 8 * 2**20
ACTOR = "import"


@dataclass(frozen=True)
class NotImported:
    """A crop that was left out, and why."""

    crop_id: str
    reason: str


@dataclass(frozen=True)
class Imported:
    """Crops enrolled now, those that the gallery had (they are as they were), and those left out."""

    created: int
    known: int
    left_out: tuple[NotImported, ...]


def import_crops(
    source: Path, gallery: AnyGallery, audit: AnyAudit, engine: Engine, kept: Kept, progress: Progress = unheard
) -> Imported:
    """Enrols the crops of the archive `source` under their own ids, with their labels, marks and times.

    What the gallery has already it keeps as it is, so an import that was stopped goes on when it is called again.
    Crops without a picture, or with one that cannot be embedded, are left out and told. `kept` says what to store of
    a picture. Progress is told in crops.

    Raises JobError for a file that is no whole archive and when the disk is nearly full (what came before is
    enrolled), EngineError when the engine fails, and what `Gallery.enrol` raises.
    """
    run = _Import(gallery, audit, engine, kept)
    try:
        with source.open("rb") as file, tarfile.open(fileobj=file, mode="r|") as archive:
            members = iter(archive)
            crops = _read_manifest(source, archive, next(members, None))
            run.take(crops, archive, members, progress)
    except OSError as error:
        raise JobError(f"{source} cannot be read: {error.strerror or error}.") from error
    except (tarfile.TarError, EOFError) as error:
        raise JobError(f"{source} is damaged or cut off ({error}); get it again and import it again.") from error
    return run.result()


class _Import:
    """What one import has done so far."""

    def __init__(self, gallery: AnyGallery, audit: AnyAudit, engine: Engine, kept: Kept) -> None:
        self._gallery, self._audit, self._engine, self._kept = gallery, audit, engine, kept
        self._created = self._known = 0
        self._left_out: list[NotImported] = []

    def result(self) -> Imported:
        return Imported(self._created, self._known, tuple(self._left_out))

    def take(
        self,
        crops: Sequence[ArchivedCrop],
        archive: tarfile.TarFile,
        members: Iterator[tarfile.TarInfo],
        progress: Progress,
    ) -> None:
        """Enrols the members of the archive that `crops` name."""
        files = {crop.file: crop for crop in crops if crop.file is not None}
        self._leave_out([crop for crop in crops if crop.file is None], "the archive has no picture of it")
        progress(done := len(crops) - len(files), len(crops))
        pictures = ((files.pop(one.name), _content(archive, one)) for one in members if one.name in files)
        while chunk := list(islice(pictures, CHUNK)):
            self._enrol({str(crop.crop_id): (crop, content) for crop, content in chunk})
            progress(done := done + len(chunk), len(crops))
        self._leave_out(files.values(), "the archive does not have the picture that its manifest names")

    def _leave_out(self, crops: Iterable[ArchivedCrop], reason: str) -> None:
        self._left_out += [NotImported(str(crop.crop_id), reason) for crop in crops]

    def _enrol(self, chunk: Mapping[str, tuple[ArchivedCrop, bytes]]) -> None:
        known = self._gallery.known(chunk)
        if len(known) < len(chunk) and (shortage := self._gallery.shortage) is not None:
            raise JobError(f"Nothing more is imported: {shortage}; free space, and the same command goes on.")
        self._known += len(known)
        pictures, stored = [], {}
        for crop_id, (crop, content) in chunk.items():
            if crop_id in known:
                continue
            try:
                pixels, stored[crop_id] = self._decoded(content)
                pictures.append((crop, pixels))
            except ImageError as error:
                self._leave_out([crop], f"its picture cannot be used: {error}")
        vectors, failed = embed(pictures, self._engine)
        self._leave_out(failed, "the model gives no embedding for its picture")
        new = [_new_crop(crop, vector, stored[str(crop.crop_id)]) for crop, vector in vectors]
        if new:
            names = {crop.labels.identity for crop in new if crop.labels.identity is not None}
            act = Act("enrol", ACTOR, [*(crop.crop_id for crop in new), *sorted(names)], len(new))
            self._audit.perform(act, self._gallery.enrol, new)
            self._created += len(new)

    def _decoded(self, content: bytes) -> tuple[NDArray[np.uint8], bytes | None]:
        info = self._engine.info
        return decode_and_keep(content, info.height, info.width, self._kept)


def _new_crop(crop: ArchivedCrop, vector: NDArray[np.float32], stored: bytes | None) -> NewCrop:
    return NewCrop(str(crop.crop_id), vector, stored, crop.labels(), crop.enrolled_at, crop.not_identity)


def _read_manifest(source: Path, archive: tarfile.TarFile, member: tarfile.TarInfo | None) -> list[ArchivedCrop]:
    if member is None or member.name != MANIFEST_NAME or not member.isreg():
        raise JobError(f"{source} is no export of a gallery: {MANIFEST_NAME} is not its first member.")
    lines = archive.extractfile(member)
    assert lines is not None  # it is a regular file
    place = "its first line"
    try:
        head = ArchiveHead.model_validate_json(lines.readline(MAX_LINE))
        crops: list[ArchivedCrop] = []
        while line := lines.readline(MAX_LINE):
            place = f"line {len(crops) + 2}"
            crops.append(ArchivedCrop.model_validate_json(line))
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise JobError(f"The {MANIFEST_NAME} in {source} cannot be used: {place}: {reason}.") from error
    if len(crops) != head.crops:
        raise JobError(f"The {MANIFEST_NAME} in {source} names {len(crops):,} crops and says it has {head.crops:,}.")
    return crops


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """A picture's bytes; none for what is no file or too large to be a picture, which no decoder takes."""
    file = archive.extractfile(member) if member.isreg() and member.size <= MAX_PICTURE_BYTES else None
    return b"" if file is None else file.read()
