"""Reads a tar archive as it arrives, a member at a time, and gives up at the first byte over a limit.

Python's `tarfile` reads extended headers of any size, follows sparse maps and seeks. Here only its reading of
one 512-byte header is used; names are repeated in answers and never become paths.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import AsyncIterator
from dataclasses import dataclass

from service.api.limits import MAX_FILE_BYTES, MAX_MANIFEST_BYTES, MAX_TAR_HEADERS
from service.api.problems import Kind, Problem

MANIFEST = "manifest.jsonl"
BLOCK = tarfile.BLOCKSIZE
ZEROS = bytes(BLOCK)
MAX_EXTENDED_BYTES = 64 * 2**10
MAX_NAME = 1024
GZIP, ZSTD, XZ, BZIP2 = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ", b"BZh"
REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
EXTENDED = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
WITHOUT_CONTENT = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
RECORD = re.compile(rb"(\d{1,9}) ([^=\n]{1,200})=")


@dataclass(frozen=True)
class Member:
    """One member that is no folder: its name as sent, and its content or why that is not taken."""

    name: str
    content: bytes | Problem

    @property
    def path(self) -> str:
        """The name without the `./` that `tar -C folder .` writes."""
        return self.name.removeprefix("./")


@dataclass(frozen=True)
class _Said:
    """What extended headers say about the member after them."""

    name: bytes | None = None
    size: int | None = None
    sparse: bool = False


async def read_tar(chunks: AsyncIterator[bytes]) -> AsyncIterator[Member]:
    """The members in their order, in memory one at a time; the whole body is read.

    A manifest may come first and be longer than a picture. Raises Problem where the archive is broken, ends
    before its end mark, or has too many headers: the members yielded before are whole.
    """
    stream = _Stream(chunks)
    said, first = _Said(), True
    for number in range(MAX_TAR_HEADERS):
        block = await stream.read(BLOCK)
        if block == ZEROS:
            await _only_zeros(stream)
            return
        header = _parsed(block, number)
        if header.type in (*EXTENDED, tarfile.GNUTYPE_LONGNAME):
            content = await stream.read_padded(_limited(header.size))
            said = _extended(said, header, content)
            continue
        if header.type in (tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK):
            await stream.skip_padded(header.size)
            continue
        if header.type != tarfile.DIRTYPE:
            yield await _member(stream, header, said, first)
            first = False
        said = _Said()
    raise Problem(Kind.BODY_TOO_LARGE, f"An archive may have {MAX_TAR_HEADERS:,} headers; send several.")


async def _member(stream: _Stream, header: tarfile.TarInfo, said: _Said, first: bool) -> Member:
    raw = header.name.encode("utf-8", "surrogateescape") if said.name is None else said.name
    name = raw.decode("utf-8", "replace")
    size = header.size if said.size is None else said.size
    if header.type in WITHOUT_CONTENT:
        return Member(name[:MAX_NAME], _refused("is a link or a device"))
    reason = _why_not(header, said, name)
    if reason is not None:
        await stream.skip_padded(size)
        return Member(name[:MAX_NAME], _refused(reason))
    limit = MAX_MANIFEST_BYTES if first and name.removeprefix("./") == MANIFEST else MAX_FILE_BYTES
    if size > limit:
        await stream.skip_padded(size)
        return Member(name, Problem(Kind.FILE_TOO_LARGE, f"A file may have {limit // 2**20} MiB."))
    return Member(name, await stream.read_padded(size))


def _why_not(header: tarfile.TarInfo, said: _Said, name: str) -> str | None:
    if header.type not in REGULAR:
        return "is no regular file"
    if said.sparse:
        return "is stored with holes; pack it without --sparse"
    if len(name) > MAX_NAME:
        return f"has a name of more than {MAX_NAME} characters"
    if name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name):
        return "has a name that leads out of the archive"
    if not name.isprintable() or not name:
        return "has a name that cannot be printed"
    return None


def _refused(reason: str) -> Problem:
    return Problem(Kind.REFUSED_MEMBER, f"This member {reason}; only plain files are taken.")


def _parsed(block: bytes, number: int) -> tarfile.TarInfo:
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        if number == 0 and block.startswith((GZIP, ZSTD, XZ, BZIP2)):
            raise _broken("it is compressed; send it as plain tar") from error
        raise _broken("a header is damaged" if number else "it does not begin like one") from error
    if header.size < 0:
        raise _broken("a header is damaged")
    if header.type == tarfile.GNUTYPE_SPARSE:
        raise _broken("a file is stored with holes; pack it without --sparse")
    return header


def _limited(size: int) -> int:
    if size > MAX_EXTENDED_BYTES:
        raise _broken(f"an extended header has more than {MAX_EXTENDED_BYTES // 2**10} KiB")
    return size


def _extended(said: _Said, header: tarfile.TarInfo, content: bytes) -> _Said:
    """What is known of the next member with this header: GNU's long name, or POSIX records."""
    if header.type == tarfile.GNUTYPE_LONGNAME:
        return _Said(content.partition(b"\0")[0], said.size, said.sparse)
    name, size, sparse = said.name, said.size, said.sparse
    at = 0
    while record := RECORD.match(content, at):
        end = at + int(record[1])
        if not record.end() < end <= len(content):
            raise _broken("an extended header is damaged")
        value = content[record.end() : end - 1]
        if record[2] == b"path":
            name = value
        elif record[2] == b"size":
            if not re.fullmatch(rb"\d{1,18}", value):
                raise _broken("an extended header is damaged")
            size = int(value)
        sparse = sparse or record[2].startswith(b"GNU.sparse")
        at = end
    return _Said(name, size, sparse)


async def _only_zeros(stream: _Stream) -> None:
    """Reads what pads the archive; a second one behind it would be lost without a word."""
    async for rest in stream.rest():
        if rest.count(0) != len(rest):
            raise _broken("something follows its end mark; send one archive at a time")


class _Stream:
    """A body of any length, read in pieces of known size."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._ahead = b""

    async def read(self, size: int) -> bytes:
        """Exactly so many bytes; raises Problem when the body ends before."""
        pieces, missing = [], size
        while missing:
            piece = await self._next(missing)
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)

    async def read_padded(self, size: int) -> bytes:
        """So many bytes, and what fills the last block."""
        content = await self.read(size)
        await self._skip(-size % BLOCK)
        return content

    async def skip_padded(self, size: int) -> None:
        """The same, without keeping anything."""
        await self._skip(size + -size % BLOCK)

    async def rest(self) -> AsyncIterator[bytes]:
        """What is left of the body."""
        yield self._ahead
        async for chunk in self._chunks:
            yield chunk

    async def _skip(self, size: int) -> None:
        while size:
            size -= len(await self._next(size))

    async def _next(self, most: int) -> bytes:
        while not self._ahead:
            try:
                self._ahead = await anext(self._chunks)
            except StopAsyncIteration:
                raise _broken("it ends before its end mark") from None
        piece, self._ahead = self._ahead[:most], self._ahead[most:]
        return piece


def _broken(reason: str) -> Problem:
    return Problem(Kind.MALFORMED_BODY, f"The tar archive cannot be read on: {reason}.")
