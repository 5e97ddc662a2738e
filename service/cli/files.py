"""Picture files on the disk and in zips: found, listed, and read when they are needed."""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

from service.cli.items import Item, SourceError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
ENCRYPTED = 1  # in a zip member's flags


@dataclass(frozen=True)
class File:
    """A file by its path below the folder or zip that was named."""

    path: PurePosixPath
    size: int
    load: Callable[[], bytes]


def walk(folder: Path) -> list[File]:
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = [Path(root, name) for name in names]
        found += [file_on_disk(path, PurePosixPath(path.relative_to(folder).as_posix())) for path in paths]
    return sorted(found, key=lambda file: file.path)


def file_item(path: Path) -> Item:
    """The file as an item without labels."""
    return to_item(file_on_disk(path, PurePosixPath(path)))


def file_on_disk(path: Path, name: PurePosixPath) -> File:
    try:
        size = path.stat().st_size
    except (OSError, ValueError):
        size = 0  # gone, a broken link, or no possible name: reading it says so, by name
    return File(name, size, partial(_read_file, path))


def _read_file(path: Path) -> bytes:
    """Raises OSError; SourceError for pipes and devices, which may never end, and for what can be no file's name."""
    try:
        regular = stat.S_ISREG(path.stat().st_mode)
    except ValueError as error:
        raise SourceError("cannot be read: no file has such a name") from error
    if not regular:
        raise SourceError("cannot be read: it is no regular file")
    return path.read_bytes()


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    if info.flag_bits & ENCRYPTED:
        raise SourceError("is encrypted; unpack the zip with its password and name the folder instead")
    return archive.read(info)


def list_zip(stack: ExitStack, path: Path, keep_top: bool) -> list[File]:
    """The members by path; a folder that holds all images is what was zipped, and no part of the path.

    `keep_top` keeps it where it is the only folder that could name an identity.
    """
    try:
        archive = stack.enter_context(zipfile.ZipFile(path))
    except (OSError, zipfile.BadZipFile) as error:
        raise SourceError(f"{path} cannot be opened as a zip: {error}") from error
    files = [
        File(PurePosixPath(info.filename.replace("\\", "/")), info.file_size, partial(_read_member, archive, info))
        for info in archive.infolist()
        if not info.is_dir()
    ]
    images = [file.path for file in files if is_image(file.path)]
    tops = {path.parts[0] for path in images}
    depth = min((len(path.parts) for path in images), default=1)
    if len(tops) == 1 and depth > (2 if keep_top else 1):
        top = tops.pop()
        files = [replace(f, path=f.path.relative_to(top)) if f.path.parts[0] == top else f for f in files]
    return sorted(files, key=lambda file: file.path)


def is_image(path: PurePosixPath) -> bool:
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return not hidden and path.suffix.lower() in IMAGE_SUFFIXES


def to_item(file: File) -> Item:
    return Item(readable(file.path), file.size, file.load)


def readable(name: str | PurePosixPath) -> str:
    """The name as text that can be sent and printed: what is not UTF-8 in it becomes �."""
    return str(name).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
