"""Files of named sections, each with a checksum, and a footer that says so: copies of what the database stores.

One pass writes such a file: the sections, then the footer (JSON), then the footer's length, its CRC-32 and the magic.
A file that was cut off therefore ends without footer.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

TAIL = struct.Struct("<QI8s")
AT_ONCE = 1 << 24  # bytes read at a time
MOST_FOOTER = 1 << 26  # bytes


class CopyUnusable(Exception):
    """The file is not whole, or not the one that is wanted; the message says why."""


def open_copy(path: Path) -> BinaryIO:
    """A copy, to read. Raises CopyUnusable for what is no file of its own: opening a pipe would wait for ever,
    and an erasure would remove a link, but not what it points to. Raises OSError.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise CopyUnusable("it is a link") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise CopyUnusable("it is no regular file")
    return os.fdopen(descriptor, "rb")


class SectionWriter:
    """Writes one section after the other into an empty file, and its footer at last. All methods raise OSError."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sections: dict[str, dict[str, int]] = {}

    def begin(self, name: str) -> Callable[[bytes], None]:
        """Begins a section; what is returned takes its bytes, part by part, until the next one begins."""
        section = self._sections[name] = {"length": 0, "crc32": 0}

        def write(part: bytes) -> None:
            self._file.write(part)
            section["length"] += len(part)
            section["crc32"] = zlib.crc32(part, section["crc32"])

        return write

    def add(self, name: str, parts: Iterable[bytes]) -> None:
        """Writes a whole section."""
        write = self.begin(name)
        for part in parts:
            write(part)

    def finish(self, magic: bytes, about: Mapping[str, object]) -> None:
        """Writes the footer, `about` (JSON) and where the sections are, and has all of it on the disk.

        The 8 bytes of `magic` name the format.
        """
        footer = json.dumps({**about, "sections": self._sections}).encode()
        self._file.write(footer)
        self._file.write(TAIL.pack(len(footer), zlib.crc32(footer), magic))
        self._file.flush()
        os.fsync(self._file.fileno())


class SectionReader:
    """An open file of sections; `about` is what `finish` was given.

    Everything read from it is checked; what is wrong raises CopyUnusable.
    """

    def __init__(self, file: BinaryIO, magic: bytes) -> None:
        self._file = file
        self.about, sections = _footer(file, magic)
        self._sections: dict[str, tuple[int, int, int]] = {}
        start = 0
        for name, (length, crc) in sections.items():
            self._sections[name] = (start, length, crc)
            start += length

    def length(self, name: str) -> int:
        """In bytes."""
        return self._section(name)[1]

    def _section(self, name: str) -> tuple[int, int, int]:
        if name not in self._sections:
            raise CopyUnusable(f"it has no {name}")
        return self._sections[name]

    def parts(self, name: str, size: int = AT_ONCE) -> Iterator[bytes]:
        """Its bytes, `size` at a time. Whether they are whole, only their end shows."""
        start, length, expected = self._section(name)
        self._file.seek(start)
        crc = 0
        while length:
            part = self._file.read(min(size, length))
            if not part:
                raise CopyUnusable("it is cut off")
            crc = zlib.crc32(part, crc)
            length -= len(part)
            yield part
        if crc != expected:
            raise CopyUnusable(f"its {name} are damaged")

    def checked(self, name: str) -> Callable[[int], bytes]:
        """What reads so many bytes of a section on, once it was found to be whole. One at a time."""
        for _ in self.parts(name):
            pass
        self._file.seek(self._section(name)[0])
        return self._file.read


def _footer(file: BinaryIO, magic: bytes) -> tuple[dict[str, Any], dict[str, tuple[int, int]]]:
    """What it says, and the length and the checksum of each section, in order. Raises CopyUnusable, OSError."""
    size = file.seek(0, os.SEEK_END)
    if size < TAIL.size:
        raise CopyUnusable("it is cut off")
    file.seek(size - TAIL.size)
    length, crc, found = TAIL.unpack(file.read(TAIL.size))
    if found != magic:
        raise CopyUnusable("it is cut off, or of no format that this release knows")
    if length > min(size - TAIL.size, MOST_FOOTER):
        raise CopyUnusable("its footer is damaged")
    file.seek(size - TAIL.size - length)
    footer = file.read(length)
    if zlib.crc32(footer) != crc:
        raise CopyUnusable("its footer is damaged")
    about, sections = _content(footer)
    if sum(length for length, _ in sections.values()) + length + TAIL.size != size:
        raise CopyUnusable("its length is wrong")
    return about, sections


def _content(footer: bytes) -> tuple[dict[str, Any], dict[str, tuple[int, int]]]:
    try:
        about = json.loads(footer)
        sections = {name: (section["length"], section["crc32"]) for name, section in about.pop("sections").items()}
        if any(type(number) is not int or number < 0 for section in sections.values() for number in section):
            raise ValueError("no lengths and checksums")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, MemoryError) as error:
        raise CopyUnusable("its footer is none of a copy") from error
    return about, sections
