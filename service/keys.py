"""The key file: who may use the service, and how much of it. Knows neither HTTP nor the gallery.

    {"keys": [{"name": "gate-3", "scope": "enrol", "sha256": "…", "created": "2026-05-01T12:00:00+00:00"}]}

The file holds the SHA-256 of each key and never a key. A slow password hash would add nothing here: a key is 256
random bits, so that there are no likely ones to try, and a slow hash of what strangers send would be a way to keep
the service busy. The file is written whole, and a running service reads it again when it changes.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

PREFIX = "rsk_"  # lets a scanner of repositories and logs know a key when it sees one
SECRET_BYTES = 32
ANONYMOUS = "anonymous"  # the actor where no keys are set; no key may be called so
MAX_FILE_BYTES = 2**20

KEY = re.compile(rf"{PREFIX}[0-9a-f]{{{2 * SECRET_BYTES}}}", re.ASCII)
NAME = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)
DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


class KeysError(ValueError):
    """The key file cannot be used, or not changed as asked; the sentence says why and what to do."""


class KeyScope(StrEnum):
    """What a key may do; each scope includes those before it."""

    QUERY = "query"
    ENROL = "enrol"
    ADMIN = "admin"

    def covers(self, needed: KeyScope) -> bool:
        """Whether this scope is enough where `needed` is asked for."""
        order = list(KeyScope)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True)
class Key:
    """One line of the key file. `sha256` is of the whole key in hexadecimal, `created` is RFC 3339."""

    name: str
    scope: KeyScope
    sha256: str
    created: str


class KeyRing:
    """The keys of a running service, read again when the file changes; belongs to one thread.

    Raises KeysError when the file cannot be used at first. Later a broken version changes nothing: the last good
    one counts on, the log says so once, and `trouble` as long as it lasts.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = _stamp_of(path)
        self._keys = read_keys(path)
        self.trouble: str | None = None

    def find(self, token: str) -> Key | None:
        """The key that `token` is. How long it takes does not depend on how near a wrong one comes."""
        found = None
        digest = digest_of(token)
        for key in self.current():
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found

    def named(self, name: str) -> Key | None:
        """The key of that name."""
        return next((key for key in self.current() if key.name == name), None)

    def current(self) -> tuple[Key, ...]:
        """The keys of the newest good version of the file."""
        stamp = _stamp_of(self._path)
        if stamp != self._stamp:
            self._stamp = stamp
            self._read_again()
        return self._keys

    def _read_again(self) -> None:
        try:
            self._keys = read_keys(self._path)
        except KeysError as error:
            self.trouble = f"the keys of before still count, because the new ones cannot be read: {error}"
            logger.error("the changed key file cannot be used: %s", error)
        else:
            self.trouble = None
            logger.info("the key file was read again", extra={"keys": len(self._keys)})


def digest_of(token: str) -> str:
    """What the file keeps of a key."""
    return hashlib.sha256(token.encode()).hexdigest()


def read_keys(path: Path) -> tuple[Key, ...]:
    """The keys in a file. Raises KeysError."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError as error:
        raise KeysError(
            f"there is no key file {path}; make it with `resight keys create NAME --scope admin --file {path}`"
        ) from error
    except OSError as error:
        raise KeysError(f"the key file {path} cannot be read: {error.strerror}") from error
    try:
        if len(text) > MAX_FILE_BYTES:
            raise KeysError("it is larger than 1 MiB")
        return _keys_of(json.loads(text))
    except (ValueError, RecursionError) as error:  # among them JSON's and Unicode's errors
        reason = error if isinstance(error, KeysError) else "it is not JSON"
        raise KeysError(f"the key file {path} is damaged: {reason}; mend it or make another") from error


def _keys_of(document: Any) -> tuple[Key, ...]:
    """What it does not repeat is what stands in the file: that may be a key, pasted where its hash belongs."""
    if not isinstance(document, dict) or set(document) != {"keys"} or not isinstance(document["keys"], list):
        raise KeysError('it is not of the form {"keys": [...]}')
    keys = tuple(_key_of(entry, number) for number, entry in enumerate(document["keys"], 1))
    if len({key.name for key in keys}) < len(keys):
        raise KeysError("two keys have the same name")
    return keys


def _key_of(entry: Any, number: int) -> Key:
    fields = {"name", "scope", "sha256", "created"}
    if not isinstance(entry, dict) or set(entry) != fields or not all(isinstance(one, str) for one in entry.values()):
        raise KeysError(f"key {number} must have the texts name, scope, sha256 and created, and nothing else")
    if not NAME.fullmatch(entry["name"]) or entry["name"] == ANONYMOUS:
        raise KeysError(f"key {number} has no usable name")
    if not DIGEST.fullmatch(entry["sha256"]):
        raise KeysError(f"sha256 of key {number} must be 64 hexadecimal digits in lower case")
    if entry["scope"] not in list(KeyScope):
        raise KeysError(f"scope of key {number} must be query, enrol or admin")
    return Key(entry["name"], KeyScope(entry["scope"]), entry["sha256"], entry["created"])


def create_key(path: Path, name: str, scope: KeyScope) -> str:
    """Adds a key to the file, which is made when it is missing; the key, which nothing keeps. Raises KeysError."""
    if not NAME.fullmatch(name) or name == ANONYMOUS:
        raise KeysError(f"a key's name is 1-128 of the letters A-Z a-z, digits and . _ : -, and not {ANONYMOUS}")
    token = PREFIX + secrets.token_hex(SECRET_BYTES)
    created = datetime.now(UTC).isoformat(timespec="seconds")

    def add(keys: tuple[Key, ...]) -> tuple[Key, ...]:
        if any(key.name == name for key in keys):
            raise KeysError(f"there is a key named {name} already; revoke it first, or choose another name")
        return (*keys, Key(name, scope, digest_of(token), created))

    _change(path, add)
    return token


def revoke_key(path: Path, name: str) -> None:
    """Takes a key out of the file. Raises KeysError when there is none of that name."""
    read_keys(path)  # of a file that is missing the sentence says so

    def remove(keys: tuple[Key, ...]) -> tuple[Key, ...]:
        kept = tuple(key for key in keys if key.name != name)
        if len(kept) == len(keys):
            raise KeysError(f"there is no key of that name in {path}; `resight keys list` shows them")
        return kept

    _change(path, remove)


def _change(path: Path, change: Callable[[tuple[Key, ...]], tuple[Key, ...]]) -> None:
    """Replaces the file by what `change` makes of its keys: wholly or not at all, one process at a time."""
    target = path.resolve()  # a link to the file stays a link
    try:
        with _locked(target.with_name(f".{target.name}.lock")):
            keys = change(read_keys(target) if target.exists() else ())
            document = {"keys": [asdict(key) for key in keys]}
            _replace(target, json.dumps(document, indent=2).encode() + b"\n")
    except OSError as error:
        raise KeysError(f"the key file {path} cannot be written: {error.strerror}") from error


@contextmanager
def _locked(beside: Path) -> Iterator[None]:
    """Holds a lock on a file of its own: the key file is another one after each change, its folder a service's."""
    descriptor = os.open(beside, os.O_RDONLY | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(target: Path, content: bytes) -> None:
    """Only its owner may read the new file, who is the old one's: root may make keys for a service that is not root."""
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")  # with mode 0600
    try:
        with open(descriptor, "wb") as file:
            with suppress(FileNotFoundError, PermissionError):
                owner = target.stat()
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.replace(name, target)
        _sync_folder(target.parent)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _stamp_of(path: Path) -> tuple[int, int, int] | None:
    """What changes with the file's content; None while there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
