"""The engines that TensorRT built, kept for the card, the model and the versions that they were built for."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

logger = logging.getLogger(__name__)

SEAL = "engines.json"
UNFINISHED = f"{SEAL}.new"
MOST_SEAL = 1 << 20  # bytes

Facts = Mapping[str, str | int]


def engine_folder(root: Path, facts: Facts) -> Path:
    """The folder of the engines that `facts` describe; they differ in anything, and it is another one.

    What is in it is used only if it is just what `seal` saw there: an engine is a program, and TensorRT does not look
    closely at what it loads. Anything else is thrown away, with a line in the log, and built anew. Raises OSError.
    """
    folder = root / f"tensorrt-{hashlib.sha256(_written(facts)).hexdigest()[:16]}"
    if (folder.is_dir() or folder.is_symlink()) and (reason := _broken(folder, facts)) is not None:
        if reason:
            logger.warning("kept engines are built anew", extra={"folder": str(folder), "reason": reason})
        clear(folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def seal(folder: Path, facts: Facts) -> None:
    """Writes down what is in the folder now, for the next start. Raises OSError."""
    kept = {"facts": dict(facts), "sha256": _digests(folder)}
    unfinished = folder / UNFINISHED
    with unfinished.open("wb") as file:
        file.write(_written(kept))
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(folder / SEAL)


def clear(folder: Path) -> None:
    """Throws the folder away; of a link, the link alone. Raises OSError."""
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder)


def _broken(folder: Path, facts: Facts) -> str | None:
    """Why what is in the folder cannot be used, "" if there is nothing yet; None while all is well."""
    if folder.is_symlink():
        return "their folder is a link"
    try:
        with (folder / SEAL).open("rb") as file:
            kept = json.loads(file.read(MOST_SEAL))
    except FileNotFoundError:
        return "the building of them was broken off" if any(_others(folder)) else ""
    except (OSError, ValueError, RecursionError):
        return f"their {SEAL} is damaged"
    if not isinstance(kept, dict) or kept.get("facts") != dict(facts):
        return "they are for another card, model or version"
    digests = _digests(folder)
    if None in digests.values():
        return "there are links among them"
    if kept.get("sha256") != digests:
        return "they are damaged"
    return None


def _others(folder: Path) -> Iterator[Path]:
    """What is in the folder and the folders in it, but for what `seal` writes."""
    for path, folders, files in os.walk(folder):
        for found in (Path(path, name) for name in [*folders, *files]):
            if found not in (folder / SEAL, folder / UNFINISHED) and (found.is_symlink() or not found.is_dir()):
                yield found


def _digests(folder: Path) -> dict[str, str | None]:
    """By path; None for a link and what else is no file: nobody knows what it is by the time it is loaded."""
    return {str(path.relative_to(folder)): _digest(path) for path in _others(folder)}


def _digest(path: Path) -> str | None:
    if path.is_symlink() or not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _written(value: Mapping[str, object]) -> bytes:
    return json.dumps(dict(value), sort_keys=True, indent=1).encode()
