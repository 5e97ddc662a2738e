"""What `resight enrol PATH…` reads: folders, zips, CSV tables and single image files, as labelled items.

Listing is eager (names and sizes only, so that a progress bar knows the total), reading is lazy. The order is
the sorted order of the names, so the same command reads the same crops in the same order again.
"""

from __future__ import annotations

import csv
import io
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from pathlib import Path, PurePosixPath

from service.marketnames import read_market_name

MAX_FILE_BYTES = 8 * 2**20  # the service's limit a file: more is refused here, before it is read and sent
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
CSV_COLUMNS = ("path", "identity", "camera", "captured_at", "track")
ENCRYPTED = 1  # in a zip member's flags
# Folders that hold crops of many people, not those of one: Market-1501's parts, and what one's own are divided into.
PARTS = frozenset({"bounding_box_train", "bounding_box_test", "query", "gt_bbox"})
SPLITS = frozenset({"train", "query", "gallery"})


class SourceError(ValueError):
    """What was named cannot be read, or cannot be understood; the sentence says why and what to do."""


class Layout(StrEnum):
    """Where the labels of a source are written."""

    MARKET1501 = "market1501"
    FOLDERS = "folders"
    CSV = "csv"
    FILES = "files"


LAYOUT_WORDS = {
    Layout.MARKET1501: "Market-1501 names",
    Layout.FOLDERS: "a folder per identity",
    Layout.CSV: "listed in a CSV",
    Layout.FILES: "plain image files",
}


@dataclass(frozen=True)
class Item:
    """One crop to enrol: its name in reports, its size in bytes, how to read it, its labels or None."""

    name: str
    size: int
    load: Callable[[], bytes]
    identity: str | None = None
    camera: str | None = None
    captured_at: str | None = None
    track: str | None = None

    def read(self) -> bytes:
        """The file's bytes, undecoded. Raises SourceError when it is too large or cannot be read."""
        if self.size > MAX_FILE_BYTES:
            raise SourceError(f"{self.size:,} bytes, more than the {MAX_FILE_BYTES // 2**20} MiB a file may have")
        try:
            return self.load()
        except SourceError:
            raise
        except OSError as error:
            raise SourceError(f"cannot be read: {error.strerror or error}") from error
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # broken or exotic
            raise SourceError(f"cannot be unpacked: {error}") from error


@dataclass(frozen=True)
class Source:
    """One thing to enrol from, already listed."""

    name: str
    layout: Layout
    items: tuple[Item, ...]
    junk: int = 0
    distractors: int = 0
    passed_over: tuple[str, ...] = ()

    def describe(self) -> str:
        """One line: how many crops, how they were understood, and what was left out."""
        identities = len({item.identity for item in self.items} - {None})
        notes = [_count(identities, "identity", "identities")] if identities else []
        if self.distractors:
            notes.append(f"{_count(self.distractors, 'distractor')} (0000) enrolled without identity")
        if self.junk:
            notes.append(f"{self.junk:,} junk (-1) left out")
        if self.passed_over:
            shown = ", ".join(self.passed_over[:3]) + (", …" if len(self.passed_over) > 3 else "")
            notes.append(f"{_count(len(self.passed_over), 'other file')} passed over ({shown})")
        head = f"reading {_count(len(self.items), 'crop')}, {LAYOUT_WORDS[self.layout]}, from {self.name}"
        return f"{head}: {'; '.join(notes)}" if notes else head


@contextmanager
def open_sources(
    paths: Sequence[Path],
    *,
    layout: Layout | None = None,
    identity: str | None = None,
    camera: str | None = None,
) -> Iterator[list[Source]]:
    """List what lies at `paths`; zips stay open inside the `with`.

    The layout of each path is found out from its names, unless `layout` says it. `identity` and `camera`
    label the crops whose layout does not. Single image files among `paths` make one source.
    Raises SourceError for a path that cannot be understood and for labels that contradict the names.
    """
    singles = [path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    with ExitStack() as stack:
        sources = [_one_source(stack, path, layout, identity, camera) for path in paths if path not in singles]
        if singles:
            files = [_file_on_disk(path, PurePosixPath(path.name)) for path in singles]
            meant = layout or (Layout.FILES if identity or camera else _detect(files, "these files"))
            name = str(singles[0]) if len(singles) == 1 else f"{len(singles):,} files"
            sources.append(_label(name, files, meant, identity, camera))
        yield sources


@dataclass(frozen=True)
class _File:
    """A file by its path below the folder or zip that was named."""

    path: PurePosixPath
    size: int
    load: Callable[[], bytes]


def _one_source(
    stack: ExitStack, path: Path, layout: Layout | None, identity: str | None, camera: str | None
) -> Source:
    if path.suffix.lower() == ".csv" and path.is_file():
        if layout not in (None, Layout.CSV):
            raise SourceError(f"{path} is a CSV: its layout cannot be {layout}")
        return _read_table(path, identity, camera)
    if path.is_dir():
        files = _walk(path)
    elif path.suffix.lower() == ".zip" and path.is_file():
        files = _list_zip(stack, path, keep_top=layout is Layout.FOLDERS)
    elif not path.exists():
        raise SourceError(f"{path} does not exist")
    else:
        raise SourceError(f"{path} is neither an image, nor a folder, nor a .zip, nor a .csv")
    if layout is Layout.CSV:
        raise SourceError(f"{path} is no CSV; name the .csv file itself")
    return _label(str(path), files, layout or _detect(files, str(path)), identity, camera)


def _walk(folder: Path) -> list[_File]:
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = [Path(root, name) for name in names]
        found += [_file_on_disk(path, PurePosixPath(path.relative_to(folder).as_posix())) for path in paths]
    return sorted(found, key=lambda file: file.path)


def file_item(path: Path) -> Item:
    """The file as an item without labels."""
    return _item(_file_on_disk(path, PurePosixPath(path)))


def _file_on_disk(path: Path, name: PurePosixPath) -> _File:
    try:
        size = path.stat().st_size
    except (OSError, ValueError):
        size = 0  # gone, a broken link, or no possible name: reading it says so, by name
    return _File(name, size, partial(_read_file, path))


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


def _list_zip(stack: ExitStack, path: Path, keep_top: bool) -> list[_File]:
    """The members by path; a folder that holds all images is what was zipped, and no part of the path.

    `keep_top` keeps it where it is the only folder that could name an identity.
    """
    try:
        archive = stack.enter_context(zipfile.ZipFile(path))
    except (OSError, zipfile.BadZipFile) as error:
        raise SourceError(f"{path} cannot be opened as a zip: {error}") from error
    files = [
        _File(PurePosixPath(info.filename.replace("\\", "/")), info.file_size, partial(_read_member, archive, info))
        for info in archive.infolist()
        if not info.is_dir()
    ]
    images = [file.path for file in files if _is_image(file.path)]
    tops = {path.parts[0] for path in images}
    depth = min((len(path.parts) for path in images), default=1)
    if len(tops) == 1 and depth > (2 if keep_top else 1):
        top = tops.pop()
        files = [replace(f, path=f.path.relative_to(top)) if f.path.parts[0] == top else f for f in files]
    return sorted(files, key=lambda file: file.path)


def _is_image(path: PurePosixPath) -> bool:
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return not hidden and path.suffix.lower() in IMAGE_SUFFIXES


def _detect(files: Sequence[_File], name: str) -> Layout:
    """Market-1501 names when most images have one and no folder is a person's; else folders or plain files by where
    the images lie."""
    images = [file.path for file in files if _is_image(file.path)]
    named = 2 * sum(read_market_name(path.name) is not None for path in images) > len(images)
    holders = {path.parent for path in images}
    if named and all(not holder.name or holder.name in PARTS for holder in holders):
        return Layout.MARKET1501
    if named and len(holders) == 1:
        raise SourceError(
            f"{name} has one folder with images, {holders.pop()}, whose file names look like Market-1501's: say "
            "--layout market1501 when these tell the identity, or --layout folders when the folder's name does"
        )
    nested = sum(len(path.parts) > 1 for path in images)
    if nested in (0, len(images)):
        return Layout.FOLDERS if nested else Layout.FILES
    raise SourceError(
        f"{name} has images in folders and images beside these folders: say --layout folders when a folder's "
        "name is the identity, or --layout files when it is not"
    )


def _label(name: str, files: Sequence[_File], layout: Layout, identity: str | None, camera: str | None) -> Source:
    images = [file for file in files if _is_image(file.path)]
    others = tuple(_readable(file.path) for file in files if not _is_image(file.path))
    match layout:
        case Layout.MARKET1501:
            if identity or camera:
                raise SourceError(f"in {name} the file names say identity and camera; --layout files ignores them")
            return _label_by_market_name(name, images, others)
        case Layout.FOLDERS:
            if identity:
                raise SourceError(f"in {name} the folders say the identity; --layout files ignores them")
            items = [replace(_item(file), identity=_person(file.path), camera=camera) for file in images]
            return Source(name, layout, tuple(items), passed_over=others)
        case Layout.FILES:
            items = [replace(_item(file), identity=identity, camera=camera) for file in images]
            return Source(name, layout, tuple(items), passed_over=others)
        case Layout.CSV:
            raise SourceError(f"{name} is no CSV; name the .csv file itself")


def _label_by_market_name(name: str, images: Sequence[_File], others: tuple[str, ...]) -> Source:
    """-1 (junk) is left out; 0000 (distractors) are many different people, so they get no identity."""
    items: list[Item] = []
    strangers: list[str] = []
    junk = distractors = 0
    for file in images:
        said = read_market_name(file.path.name)
        if said is None:
            strangers.append(_readable(file.path))
        elif said.junk:
            junk += 1
        else:
            distractors += said.distractor
            item = replace(_item(file), name=_readable(file.path.name))
            items.append(replace(item, identity=said.identity, camera=said.camera))
    return Source(name, Layout.MARKET1501, tuple(items), junk, distractors, (*others, *strangers))


def _item(file: _File) -> Item:
    return Item(_readable(file.path), file.size, file.load)


def _readable(name: str | PurePosixPath) -> str:
    """The name as text that can be sent and printed: what is not UTF-8 in it becomes �."""
    return str(name).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _person(path: PurePosixPath) -> str | None:
    """The folder that is named after the person: the first, below train, query or gallery where there are such."""
    folders = path.parts[:-1]
    if len(folders) > 1 and folders[0] in SPLITS:
        folders = folders[1:]
    return _readable(folders[0]) if folders else None


def _read_table(table: Path, identity: str | None, camera: str | None) -> Source:
    """Rows of CSV_COLUMNS in their order; paths are relative to the table; an empty field means unknown."""
    try:
        text = table.read_text(encoding="utf-8-sig")  # spreadsheets write a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{table} cannot be read as a UTF-8 table: {error}") from error
    header = text.partition("\n")[0]
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=";" if ";" in header else ",", strict=True)
    columns = rows.fieldnames or ()
    unknown = [column for column in columns if column not in CSV_COLUMNS]
    if "path" not in columns or unknown:
        wrong = f"has unknown columns {', '.join(map(repr, unknown))}" if unknown else "has no column 'path'"
        raise SourceError(f"{table} {wrong}; its first line names some of: {', '.join(CSV_COLUMNS)}")
    items = []
    try:
        for row in rows:
            if None in row or not row["path"]:
                raise SourceError(f"{table}, line {rows.line_num}: no path, or more fields than columns")
            items.append(_row_item(table.parent, row, identity, camera))
    except csv.Error as error:
        raise SourceError(f"{table}, line {rows.line_num}: {error}") from error
    return Source(str(table), Layout.CSV, tuple(items))


def _row_item(folder: Path, row: dict[str, str | None], identity: str | None, camera: str | None) -> Item:
    path = row["path"] or ""
    file = _file_on_disk(folder / path, PurePosixPath(path))
    return Item(
        name=path,
        size=file.size,
        load=file.load,
        identity=row.get("identity") or identity,
        camera=row.get("camera") or camera,
        captured_at=row.get("captured_at") or None,
        track=row.get("track") or None,
    )


def _count(number: int, noun: str, plural: str | None = None) -> str:
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
