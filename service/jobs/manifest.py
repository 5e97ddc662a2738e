"""What a backup says about itself: one JSON file that covers every other byte of it, and its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from service.jobs.job import JobError

FORMAT = "resight-backup/1"
MANIFEST_NAME = "manifest.json"
LARGEST = 2**16  # bytes of a manifest: a real one has less than a thousand
CHUNK = 2**20


@dataclass(frozen=True)
class Model:
    """The model that made the gallery's embeddings."""

    name: str
    sha256: str
    dim: int


@dataclass(frozen=True)
class Counts:
    """What is in the gallery."""

    crops: int
    identities: int
    pictures: int


@dataclass(frozen=True)
class File:
    """The size and SHA-256 that the backup's database must have."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """`created` is RFC 3339; `model` is None for a gallery that never had one."""

    created: str
    release: str
    schema_version: int
    model: Model | None
    counts: Counts
    database: File

    def encoded(self) -> bytes:
        """The file's content; `checksum` is the SHA-256 of all the rest, as `_checksum` writes it."""
        fields = {"format": FORMAT, **asdict(self)}
        return json.dumps({**fields, "checksum": _checksum(fields)}, indent=1).encode() + b"\n"


def read_manifest(backup: Path) -> Manifest:
    """The manifest of the backup in the folder `backup`, verified. Raises JobError."""
    path = backup / MANIFEST_NAME
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise JobError(f"{backup} is not a whole backup: it has no {MANIFEST_NAME}. Use another one.") from error
    except OSError as error:
        raise JobError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        fields = json.loads(content)
        known = fields.pop("format")
        checksum = fields.pop("checksum")
        if known != FORMAT:
            raise JobError(f"{path} says {known!r}, and this release knows {FORMAT!r} only; use the one that wrote it.")
        if checksum != _checksum({"format": known, **fields}):
            raise ValueError("its checksum disagrees")
        return _manifest(fields)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise JobError(f"{path} is damaged; use another backup.") from error


def _manifest(fields: dict[str, Any]) -> Manifest:
    manifest = Manifest(**fields)
    model = None if manifest.model is None else Model(**fields["model"])
    counts, database = Counts(**fields["counts"]), File(**fields["database"])
    return replace(manifest, model=model, counts=counts, database=database)


def _checksum(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def copied(reading: BinaryIO, writing: BinaryIO | None = None, advance: Callable[[int], None] = lambda _: None) -> File:
    """Reads a file to its end and says what it was; copies it to `writing`. `advance` gets the bytes of each step."""
    digest, size = hashlib.sha256(), 0
    while chunk := reading.read(CHUNK):
        digest.update(chunk)
        if writing is not None:
            writing.write(chunk)
        size += len(chunk)
        advance(len(chunk))
    return File(size, digest.hexdigest())
