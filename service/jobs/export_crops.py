"""`resight export`: every crop with its picture and labels in one tar, that people and other programs can read."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from service.gallery.readonly import reading_beside, require_newest_schema
from service.gallery.records import Crop
from service.gallery.rows import CROP_COLUMNS, crop_of
from service.gallery_milvus.crops import Crops
from service.jobs.archive import MANIFEST_NAME, ArchiveHead, archived
from service.jobs.job import JobError, Progress, unheard

TOLD_EVERY = 100  # crops


@dataclass(frozen=True)
class Exported:
    """How many crops the archive has, and how many of them without a picture, for none was stored."""

    crops: int
    without_picture: int


def export_crops(folder: Path, target: Path, progress: Progress = unheard) -> Exported:
    """Writes the gallery in `folder` to the new file `target`, also while a service owns the folder.

    It is the state of one moment; no lock is taken and nothing is written into `folder`. `target` appears when all
    of it is on the disk. Progress is told in pictures.

    Raises JobError when `target` cannot be made, and what `reading_beside` raises.
    """
    _refuse_existing(target)
    with reading_beside(folder) as gallery:
        require_newest_schema(gallery, folder)
        (count,) = gallery.execute("SELECT count(*) FROM crops").fetchone()
        query = f"SELECT {CROP_COLUMNS}, row IN (SELECT row FROM pictures) FROM crops ORDER BY row"
        crops = ((crop_of(record), bool(record[-1])) for record in gallery.execute(query))
        pictures = "SELECT crop_id, jpeg FROM crops JOIN pictures USING (row) ORDER BY row"
        return _write(target, count, crops, lambda: gallery.execute(pictures), progress)


def export_from_milvus(crops: Crops, target: Path, progress: Progress = unheard) -> Exported:
    """The same for a gallery in Milvus, in the order of the ids. Nothing should be enrolled or erased meanwhile.

    Raises JobError when `target` cannot be made or crops came or went meanwhile, GalleryUnavailable.
    """
    _refuse_existing(target)
    with tempfile.TemporaryFile(mode="w+") as with_pictures:

        def described() -> Iterator[tuple[Crop, bool]]:
            for some in crops.matching(""):
                for one in some:
                    has_picture = crops.pictures.has(one.crop.crop_id)
                    if has_picture:
                        with_pictures.write(one.crop.crop_id + "\n")
                    yield one.crop, has_picture

        def pictures() -> Iterator[tuple[str, bytes]]:
            with_pictures.seek(0)
            for crop_id in map(str.strip, with_pictures):
                jpeg = crops.pictures.get(crop_id)
                if jpeg is None:
                    raise JobError(f"Crop {crop_id} was erased during the export; start it again.")
                yield crop_id, jpeg

        count = crops.server.count(crops.collections.crops, strong=True)
        return _write(target, count, described(), pictures, progress)


def _refuse_existing(target: Path) -> None:
    if target.exists():
        raise JobError(f"{target} exists already, and an export never replaces anything; choose another name.")


def _write(
    target: Path,
    count: int,
    crops: Iterable[tuple[Crop, bool]],
    pictures: Callable[[], Iterable[tuple[str, bytes]]],
    progress: Progress,
) -> Exported:
    with _unfinished(target) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        exported = _add_manifest(count, crops, archive, target.parent)
        _add_pictures(pictures(), archive, exported.crops - exported.without_picture, progress)
    return exported


def _add_manifest(count: int, crops: Iterable[tuple[Crop, bool]], archive: tarfile.TarFile, scratch: Path) -> Exported:
    """It is as long as the gallery is large, and a tar wants to know its length first: so it is a file for a while."""
    bare = written = 0
    with tempfile.TemporaryFile(dir=scratch) as manifest:
        manifest.write(ArchiveHead(format="resight-export/1", crops=count).model_dump_json().encode() + b"\n")
        for crop, has_picture in crops:
            written += 1
            bare += not has_picture
            manifest.write(archived(crop, has_picture).model_dump_json(exclude_none=True).encode() + b"\n")
        if written != count:
            raise JobError(f"{abs(written - count):,} crops came or went during the export; start it again.")
        size = manifest.tell()
        manifest.seek(0)
        _add(archive, MANIFEST_NAME, size, manifest)
    return Exported(count, bare)


def _add_pictures(
    pictures: Iterable[tuple[str, bytes]], archive: tarfile.TarFile, total: int, progress: Progress
) -> None:
    for done, (crop_id, jpeg) in enumerate(pictures, 1):
        _add(archive, f"crops/{crop_id}.jpg", len(jpeg), io.BytesIO(jpeg))
        if done % TOLD_EVERY == 0 or done == total:
            progress(done, total)


def _add(archive: tarfile.TarFile, name: str, size: int, content: IO[bytes]) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o600
    archive.addfile(member, content)


@contextmanager
def _unfinished(target: Path) -> Iterator[IO[bytes]]:
    """A file beside `target` that takes its name when the block ends well, and is gone otherwise."""
    path: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=target.parent, prefix=f"{target.name}.", suffix=".unfinished", delete=False
        ) as file:
            path = Path(file.name)
            yield file
            file.flush()
            os.fsync(file.fileno())
        path.rename(target)
    except OSError as error:
        raise JobError(f"The export cannot be written to {target}: {error.strerror}.") from error
    finally:
        if path is not None:
            path.unlink(missing_ok=True)
