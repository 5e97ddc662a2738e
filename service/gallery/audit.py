"""Who enrolled, queried, changed and erased, when, and what: one line of JSON each, in a file a day.

Lines are only ever appended. Crop ids and identities stand in them as HMAC-SHA256 with a secret of this gallery, so
that who reads the log learns no name, and who holds the folder can look one up: `Audit.pseudonym`.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import json
import logging
import os
import secrets
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import ParamSpec, TypeVar

from service.gallery.closing import Closing
from service.gallery.periodic import Periodic
from service.gallery.records import GalleryFull, GalleryUnavailable

FOLDER_NAME = "audit"
SECRET_NAME = "secret"
SECRET_BYTES = 32
FLUSH_SECONDS = 2.0  # in which what need not be on disk at once gets there
MOST_WAITING = 10_000

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Act:
    """What somebody does: to the crops and identities `ids`, with or to `count` crops or pictures (None: not known)."""

    action: str
    actor: str
    ids: Iterable[str] = ()
    count: int | None = None


@dataclass(eq=False)
class _Line:
    """Of the log, to come: it is spelled out when it is written, which no query need wait for."""

    act: Act
    at: datetime
    more: Mapping[str, object]
    on_disk: bool = False

    @property
    def day(self) -> str:
        return f"{self.at:%Y-%m-%d}"


class Audit(Closing):
    """The audit log of a gallery. Thread-safe; make it with `open`, give it back with `close`."""

    def __init__(self, folder: Path, secret: bytes, clock: Callable[[], datetime]) -> None:
        self._folder = folder
        self._secret = secret
        self._clock = clock
        self._waiting: list[_Line] = []
        self._dropped = 0
        self._noting = threading.Lock()
        self._writing = threading.Lock()
        self._flusher = Periodic("gallery-audit", FLUSH_SECONDS, self._flush)

    @classmethod
    def open(cls, data_folder: Path, clock: Callable[[], datetime] | None = None) -> Audit:
        """The log in the data folder of an open gallery; made, with its secret, when it is missing.

        Raises GalleryFull, GalleryUnavailable.
        """
        folder = data_folder / FOLDER_NAME
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            secret = _secret(folder)
        except OSError as error:
            raise _refusal(folder, error) from error
        return cls(folder, secret, clock or utc_now)

    def close(self) -> None:
        """Puts on disk what waits. Idempotent."""
        self._flusher.close()
        try:
            self._flush()
        except OSError as error:
            _log.error("the end of the audit log was lost: %s", error)

    def pseudonym(self, name: str) -> str:
        """What a crop id or an identity is called in the log."""
        return pseudonym_of(self._secret, name)

    def note(self, act: Act) -> None:
        """Records what was done; on disk within seconds. Never fails; what a full disk keeps out is dropped at last."""
        self._note(self._line(act))

    def _note(self, line: _Line) -> None:
        with self._noting:
            if len(self._waiting) < MOST_WAITING:
                self._waiting.append(line)
            else:
                self._dropped += 1

    def record(self, act: Act) -> None:
        """Records what is about to be done; on disk when it returns. Records that wait together share one fsync.

        Raises GalleryFull, GalleryUnavailable: then it must not be done.
        """
        line = self._line(act)
        with self._noting:
            self._waiting.append(line)
        try:
            with self._writing:
                if not line.on_disk:
                    self._write()
        except OSError as error:
            with self._noting:
                if line.on_disk:
                    return
                self._waiting.remove(line)
            raise _refusal(self._folder, error) from error

    def perform(
        self, act: Act, work: Callable[Arguments, Result], *arguments: Arguments.args, **named: Arguments.kwargs
    ) -> Result:
        """Records the act, then does it; a second line says if that failed. Raises what `record` and `work` do."""
        self.record(act)
        try:
            return work(*arguments, **named)
        except BaseException:
            self._note(self._line(act, failed=True))
            raise

    def _line(self, act: Act, **more: object) -> _Line:
        return _Line(replace(act, ids=tuple(act.ids)), self._clock(), more)

    def _text(self, line: _Line) -> bytes:
        return line_of(line.act, line.at, self.pseudonym, **line.more).encode() + b"\n"

    def _flush(self) -> None:
        with self._writing:
            self._write()

    def _write(self) -> None:
        """Appends what waits; the caller holds `_writing`. Raises OSError, and then it still waits."""
        with self._noting:
            lines = list(self._waiting)
        for day, group in groupby(lines, key=lambda line: line.day):
            written = list(group)
            _append(self._folder / f"{day}.jsonl", b"".join(map(self._text, written)))
            for line in written:
                line.on_disk = True
            with self._noting:
                self._waiting = [line for line in self._waiting if not line.on_disk]
        with self._noting:
            dropped, self._dropped = self._dropped, 0
        if dropped:
            _log.error("the audit log lacks %d lines: too many waited for the disk", dropped)


def utc_now() -> datetime:
    """What the clock says."""
    return datetime.now(UTC)


def pseudonym_of(secret: bytes, name: str) -> str:
    """What a crop id or an identity is called in the log of the gallery with this secret."""
    return hmac.new(secret, name.encode(), hashlib.sha256).hexdigest()


def line_of(act: Act, now: datetime, pseudonym: Callable[[str], str], **more: object) -> str:
    """An act as a line of the log."""
    content: Mapping[str, object] = {
        "at": now.isoformat(timespec="milliseconds"),
        "actor": act.actor,
        "action": act.action,
        "count": act.count,
        "ids": [pseudonym(name) for name in act.ids],
        **more,
    }
    return json.dumps(content)


def _append(path: Path, text: bytes) -> None:
    """Adds lines to a file, on disk when it returns. Raises OSError, and then the file is as long as it was."""
    new = not path.exists()
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            text = b"\n" + text  # a power cut left half a line
        try:
            rest = memoryview(text)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)
    if new:
        _sync_folder(path.parent)


def _secret(folder: Path) -> bytes:
    path = folder / SECRET_NAME
    try:
        secret = path.read_bytes()
    except FileNotFoundError:
        secret = secrets.token_bytes(SECRET_BYTES)
        unfinished = path.with_suffix(".new")
        unfinished.unlink(missing_ok=True)
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secret)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        _sync_folder(folder)
    if len(secret) != SECRET_BYTES:
        raise GalleryUnavailable(f"{path} is damaged; restore it from a backup, or move {folder} away to begin anew.")
    return secret


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refusal(folder: Path, error: OSError) -> GalleryUnavailable:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return GalleryFull(f"The audit log {folder} cannot grow: the disk is full; free space, then send it again.")
    return GalleryUnavailable(f"The audit log {folder} cannot be written: {error.strerror}.")
