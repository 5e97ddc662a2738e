"""Crops of any number as tar archives of a few hundred: each small enough to be sent again. No HTTP.

A service takes archives of any length; here they are cut, so that memory stays small, what a broken connection
costs is one piece, and nobody has to read answers while sending.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

from service.client.calls import Moment, labels_of
from service.client.images import Image, file_of

MANIFEST = "manifest.jsonl"
MOST_MEMBERS, MOST_BYTES = 512, 32 * 2**20
MOST_FILE = 8 * 2**20  # as the service takes; of a larger one a byte more is sent, for it to say so
MOST_MANIFEST = 16 * 2**20

Archive = str | os.PathLike[str] | IO[bytes]


@dataclass(frozen=True)
class NewCrop:
    """A crop to enrol: its image, as `Resight.enrol` takes it, and what is known about it.

    `name` comes back in the answer; without one it is the file's, or the crop's number.
    """

    image: Image
    identity: str | None = None
    camera: str | None = None
    captured_at: Moment | None = None
    track: str | None = None
    meta: Mapping[str, object] | None = None
    name: str | None = None


@dataclass(frozen=True)
class Piece:
    """One archive to send; `names`, in their order, are what its members are called by who asked."""

    content: bytes
    names: tuple[str, ...]


@dataclass
class _Packing:
    """An archive in the making: a manifest's lines, and members."""

    lines: list[bytes] = field(default_factory=list)
    members: list[tuple[tarfile.TarInfo, bytes]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    size: int = 0

    def add(self, member: tarfile.TarInfo, content: bytes, name: str) -> None:
        self.members.append((member, content))
        self.names.append(name)
        self.size += len(content)

    def full(self, most: int) -> bool:
        return len(self.members) >= most or self.size >= MOST_BYTES

    def piece(self) -> Piece:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
            if self.lines:
                manifest = b"".join(line + b"\n" for line in self.lines)
                archive.addfile(_named(MANIFEST, manifest), io.BytesIO(manifest))
            for member, content in self.members:
                archive.addfile(member, io.BytesIO(content))
        return Piece(buffer.getvalue(), tuple(self.names))


def pieces_of_crops(crops: Iterable[NewCrop], most: int = MOST_MEMBERS, first: int = 0) -> Iterator[Piece]:
    """The crops, `most` to an archive, with their labels in its manifest; taken from `crops` as they are needed.

    `first` is the number of the first of them.
    """
    packing = _Packing()
    for number, crop in enumerate(crops, first):
        add_crop(packing, crop, number)
        if packing.full(most):
            yield packing.piece()
            packing = _Packing()
    if packing.members:
        yield packing.piece()


def add_crop(packing: _Packing, crop: NewCrop, number: int) -> None:
    """Adds a crop under a name of its own, which may say nothing about it: its labels do."""
    file, content = file_of(crop.image, number)
    place = f"crop-{number}"
    labels = {
        "identity": crop.identity,
        "camera": crop.camera,
        "captured_at": crop.captured_at,
        "track": crop.track,
        "meta": crop.meta,
    }
    packing.lines.append(json.dumps({"file": place, **labels_of(labels)}).encode())
    packing.add(_named(place, content), content, file if crop.name is None else crop.name)


def pieces_of_tar(archive: Archive, most: int = MOST_MEMBERS) -> Iterator[Piece]:
    """A tar archive, compressed or not, as smaller ones; a manifest's lines go where their files go.

    Raises tarfile.TarError where it cannot be read, ValueError where its manifest cannot.
    """
    where: dict[str, Any] = {"name": archive} if isinstance(archive, str | os.PathLike) else {"fileobj": archive}
    packing, lines, first = _Packing(), dict[str, bytes](), True
    with tarfile.open(mode="r|*", **where) as opened:
        for member in opened:
            if member.isdir():
                continue
            stream = opened.extractfile(member) if member.isreg() and not member.issparse() else None
            path = member.name.removeprefix("./")
            leads, first = first and path == MANIFEST, False
            content = b"" if stream is None else stream.read((MOST_MANIFEST if leads else MOST_FILE) + 1)
            if leads:
                lines = _manifest(content)
                continue
            if (line := lines.pop(path, None)) is not None:
                packing.lines.append(line)
            packing.add(_copied(member, len(content)), content, member.name)
            if packing.full(most):
                yield packing.piece()
                packing = _Packing()
    packing.lines.extend(lines.values())  # the service says that their files are not there
    packing.names.extend(lines)
    if packing.names:
        yield packing.piece()


def _named(name: str, content: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    return member


def _copied(member: tarfile.TarInfo, size: int) -> tarfile.TarInfo:
    """The member as the service is to see it: a link stays one, and is refused there."""
    late = member.name.removeprefix("./") == MANIFEST  # no manifest, wherever the archive is cut
    copied = tarfile.TarInfo(f"././{MANIFEST}" if late else member.name)
    copied.size, copied.type, copied.linkname = size, member.type, member.linkname
    if member.issparse():
        copied.type = tarfile.REGTYPE  # read without its content: an empty file, which is refused
    return copied


def _manifest(content: bytes) -> dict[str, bytes]:
    """Each file's line by its name."""
    if len(content) > MOST_MANIFEST:
        raise ValueError(f"{MANIFEST} has more than {MOST_MANIFEST // 2**20} MiB")
    lines: dict[str, bytes] = {}
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            file = json.loads(line)["file"]
        except (ValueError, LookupError, TypeError) as error:
            raise ValueError(f'{MANIFEST}: line {number} is no JSON object with the name of a "file"') from error
        name = str(file).removeprefix("./")
        if name in lines:
            raise ValueError(f"{MANIFEST}: line {number} names a file a second time")
        lines[name] = line.strip()
    return lines
