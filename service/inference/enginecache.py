"""The engines that TensorRT built, kept for the card, the model and the versions that they were built for."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

logger = logging.getLogger(__name__)

SEAL = "engines.json"

Facts = Mapping[str, str | int]


def engine_folder(root: Path, facts: Facts) -> Path:
    """The folder of the engines that `facts` describe; they differ in anything, and it is another one.

    What is in it is used only if it is just what `seal` saw there: an engine is a program, and TensorRT does not look
    closely at what it loads. Anything else is thrown away, with a line in the log, and built anew. Raises OSError.
    """
    folder = root / f"tensorrt-{hashlib.sha256(_written(facts)).hexdigest()[:16]}"
    if folder.is_dir() and (reason := _broken(folder, facts)) is not None:
        if reason:
            logger.warning("kept engines are built anew", extra={"folder": str(folder), "reason": reason})
        clear(folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def seal(folder: Path, facts: Facts) -> None:
    """Writes down what is in the folder now, for the next start. Raises OSError."""
    kept = {"facts": dict(facts), "sha256": {path.name: _digest(path) for path in _files(folder)}}
    unfinished = folder / f"{SEAL}.new"
    with unfinished.open("wb") as file:
        file.write(_written(kept))
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(folder / SEAL)


def clear(folder: Path) -> None:
    """Throws the folder away. Raises OSError."""
    shutil.rmtree(folder)


def _broken(folder: Path, facts: Facts) -> str | None:
    """Why what is in the folder cannot be used, "" if there is nothing yet; None while all is well."""
    files = _files(folder)
    try:
        kept = json.loads((folder / SEAL).read_bytes())
    except FileNotFoundError:
        return "the building of them was broken off" if files else ""
    except (OSError, ValueError):
        return f"their {SEAL} is damaged"
    if not isinstance(kept, dict) or kept.get("facts") != dict(facts):
        return "they are for another card, model or version"
    if kept.get("sha256") != {path.name: _digest(path) for path in files}:
        return "they are damaged"
    return None


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith(SEAL))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _written(value: Mapping[str, object]) -> bytes:
    return json.dumps(dict(value), sort_keys=True, indent=1).encode()
