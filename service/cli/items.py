"""What there is to enrol, already listed: items with their labels, and the sources that they are from."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

MAX_FILE_BYTES = 8 * 2**20  # the service's limit a file: more is refused here, before it is read and sent


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
    split: str | None = None  # train, query or gallery, where that is told; nothing is enrolled of it

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
        notes = [count(identities, "identity", "identities")] if identities else []
        if self.distractors:
            notes.append(f"{count(self.distractors, 'distractor')} (0000) enrolled without identity")
        if self.junk:
            notes.append(f"{self.junk:,} junk (-1) left out")
        if self.passed_over:
            shown = ", ".join(self.passed_over[:3]) + (", …" if len(self.passed_over) > 3 else "")
            notes.append(f"{count(len(self.passed_over), 'other file')} passed over ({shown})")
        head = f"reading {count(len(self.items), 'crop')}, {LAYOUT_WORDS[self.layout]}, from {self.name}"
        return f"{head}: {'; '.join(notes)}" if notes else head


def count(number: int, noun: str, plural: str | None = None) -> str:
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
