"""Files of a run: whole or not at all, and a clear word when the disk is full."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

LOCK = "lock"


class NotWritten(OSError):
    """A file of the run could not be written; the message names it and says what is still there."""


def make_folder(folder: Path) -> None:
    """Make a folder, and those that it lies in.

    Raises:
        ValueError: there is a file of that name, or where one of those should be.
        OSError: the file system refuses it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(
            f"{folder} cannot be a folder: it, or what it lies in, is a file; give another name"
        ) from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other commands out of a run's folder; the system lets go of it when the process ends, however it ends.

    Where what is done within fails and leaves nothing in the folder, that is gone too.

    Raises:
        ValueError: another command is in it.
    """
    with (folder / LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"another command is training in {folder}: wait until it has ended, or give another --run folder"
            ) from error
        try:
            yield
        except BaseException:
            with suppress(OSError):  # it may be a mount, or gone: what is raised is the reason
                if [path.name for path in folder.iterdir()] == [LOCK]:  # refused before anything was written
                    (folder / LOCK).unlink()
                    folder.rmdir()
            raise


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Replace `path` by what `write` writes, once that is complete and on disk; until then the earlier file stays.

    Raises:
        NotWritten: the disk is full, or the folder cannot be written. The earlier file is as it was.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        # torch's writer turns a failed write into a RuntimeError about positions in the file.
        reason = str(error) if isinstance(error, OSError) else "the disk is full, or it fails"
        raise NotWritten(f"{path} could not be written ({reason}); {_remains(path)}") from error
    finally:
        with suppress(OSError):  # read-only meanwhile, or a folder has the name: what was raised is the reason
            partial.unlink()


def append(path: Path, text: str) -> None:
    """Add `text` to the end of a file.

    Raises:
        NotWritten: the disk is full, or the folder cannot be written. The last line may be torn.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise NotWritten(f"{path} could not be written ({error})") from error


def _remains(path: Path) -> str:
    return "the earlier one is as it was" if path.is_file() else "there is no earlier one"
