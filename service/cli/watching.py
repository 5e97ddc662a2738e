"""What `resight watch` sees in a folder or a CSV: pictures that are complete, each once, until it changes."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from service.cli.files import IMAGE_SUFFIXES, file_on_disk
from service.cli.items import Item, Layout, SourceError
from service.cli.sources import label_alone
from service.cli.tables import read_table

SETTLED_SECONDS = 1.0  # size and time of change are the same for so long: whoever wrote the file is done
SUFFIXES = tuple(IMAGE_SUFFIXES)

Stamp = tuple[int, int, int]  # inode, size, time of change in nanoseconds: another one is another picture


class Unseen(Exception):
    """What is watched cannot be looked at now; the message says why."""


@dataclass(frozen=True)
class Seen:
    """A complete picture: where it is, which state of it that is, and its labels."""

    place: str
    stamp: Stamp
    item: Item


class Watcher:
    """Looks at a folder, or at the rows of a CSV, again and again.

    `junk` counts pictures whose name says that they show nobody, or which the layout does not know.
    """

    def __init__(
        self,
        watched: Path,
        layout: Layout | None = None,
        identity: str | None = None,
        camera: str | None = None,
        settled: float = SETTLED_SECONDS,
    ) -> None:
        self.junk = 0
        self._watched, self._layout, self._given = watched, layout, (identity, camera)
        self._settled = settled
        self._growing: dict[str, tuple[Stamp, float]] = {}
        self._done: dict[str, Stamp] = {}
        self._table: tuple[Stamp | None, float] = (None, 0.0)

    def look(self, now: float) -> list[Seen]:
        """The pictures that are complete and not yet `done`, in the order of their names; `now` never runs back.

        Raises Unseen.
        """
        present: dict[str, Seen] = {}
        growing: dict[str, tuple[Stamp, float]] = {}
        found = set()
        for place, stamp, labelled in self._listed(now):
            found.add(place)
            if self._done.get(place) == stamp:
                continue
            known, since = self._growing.get(place, (stamp, now))
            if known != stamp:
                since = now
            growing[place] = stamp, since
            if now - since < self._settled:
                continue
            item = labelled()
            if item is None:
                self.junk += 1
                self._done[place] = stamp
            else:
                present[place] = Seen(place, stamp, item)
        self._growing = growing
        for place in self._done.keys() - found:
            del self._done[place]
        return [present[place] for place in sorted(present)]

    def done(self, seen: Seen) -> None:
        """It is enrolled, or cannot be; it is not shown again unless it changes."""
        self._done[seen.place] = seen.stamp
        self._growing.pop(seen.place, None)

    @property
    def waiting(self) -> int:
        """Pictures that were there at the last look and are not done."""
        return len(self._growing)

    def _listed(self, now: float) -> Iterator[tuple[str, Stamp, Callable[[], Item | None]]]:
        if self._watched.suffix.lower() == ".csv":
            yield from self._rows(now)
            return
        if not os.access(self._watched, os.R_OK | os.X_OK):
            raise Unseen(f"{self._watched} cannot be read now")
        for root, folders, names in os.walk(self._watched):
            folders[:] = [name for name in folders if not name.startswith(".") and name != "__MACOSX"]
            below = os.path.relpath(root, self._watched)
            for name in names:  # strings, not paths: there may be a hundred thousand, at every look
                if name.startswith(".") or not name.lower().endswith(SUFFIXES):
                    continue
                path = os.path.join(root, name)
                stamp = _stamp(path)
                if stamp is not None:
                    place = name if below == "." else f"{below}/{name}"
                    yield place, stamp, partial(self._labelled, path, place)

    def _labelled(self, path: str, place: str) -> Item | None:
        return label_alone(file_on_disk(Path(path), PurePosixPath(place)), self._layout, *self._given)

    def _rows(self, now: float) -> Iterator[tuple[str, Stamp, Callable[[], Item | None]]]:
        """The rows whose files are there; the last line only when it has an end, or has stayed as it is."""
        stamp = _stamp(self._watched)
        if stamp != self._table[0]:
            self._table = stamp, now
        try:
            source = read_table(self._watched, *self._given, growing=now - self._table[1] < self._settled)
        except SourceError as error:
            raise Unseen(str(error)) from error
        for item in source.items:
            stamp = _stamp(self._watched.parent / item.name)
            if stamp is not None:
                yield item.name, stamp, partial(_itself, item)


def crop_id_of(data: bytes) -> str:
    """The id that the service gives a picture: the first 128 bits of its SHA-256."""
    return str(uuid.UUID(bytes=hashlib.sha256(data).digest()[:16]))


def _itself(item: Item) -> Item:
    return item


def _stamp(path: str | Path) -> Stamp | None:
    """None where there is no file, or nothing in it yet."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns) if found.st_size else None
