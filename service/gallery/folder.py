"""The data folder: one process's own, with room kept for a start on a full disk, and watched while it is used."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from service.gallery.records import GalleryLocked, GalleryUnavailable

SNAPSHOT_NAME = "index.snapshot"
UNFINISHED_SNAPSHOT_NAME = "index.snapshot.new"
STAGE_NAME = "index.stage"
UNFINISHED_STAGE_NAME = "index.stage.new"
SPARE_NAME = "spare"
SPARE_BYTES = 256 * 1024  # SQLite cannot even read without some 40 KiB of working files


class DataFolder:
    """A folder taken for this process; the lock goes with the process, even if that is killed.

    The folder itself is locked, not a file in it, which somebody could delete. Make it with `take`, give it
    back with `close`.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.removals = 0  # of copies: what was copied before the last one may have what is erased
        self._descriptor = descriptor
        self._watched: dict[Path, tuple[int, int]] = {}

    @classmethod
    def take(cls, path: Path) -> DataFolder:
        """Makes the folder if it is missing. Raises GalleryLocked, GalleryUnavailable."""
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise GalleryUnavailable(f"The data folder {path} cannot be used: {error.strerror}.") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.access(path, os.W_OK | os.X_OK):
                raise GalleryUnavailable(
                    f"The data folder {path} cannot be written; give this user the right to, or choose another folder."
                )
        except BlockingIOError as error:
            os.close(descriptor)
            raise GalleryLocked(
                f"The data folder {path} is in use by another process; stop that one or choose another folder."
            ) from error
        except BaseException as error:
            os.close(descriptor)
            if isinstance(error, OSError):
                raise GalleryUnavailable(f"The data folder {path} cannot be locked: {error.strerror}.") from error
            raise
        return cls(path, descriptor)

    def close(self) -> None:
        """Frees the folder."""
        os.close(self._descriptor)

    def sync(self) -> None:
        """Makes files that were made, renamed or removed so for good."""
        os.fsync(self._descriptor)

    def new_file(self, name: str) -> BinaryIO:
        """An empty file to write, in the place of any that has the name. Raises OSError."""
        path = self.path / name
        path.unlink(missing_ok=True)
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")

    def keep_spare(self) -> None:
        """Sets room aside, if there is any, that `give_up_spare` can free when the disk is full."""
        spare = self.path / SPARE_NAME
        with suppress(OSError):
            if spare.exists() and spare.stat().st_size == SPARE_BYTES:
                return
            try:
                spare.write_bytes(bytes(SPARE_BYTES))
            except OSError:
                spare.unlink()

    def give_up_spare(self) -> bool:
        """Frees the room that was set aside; False when there was none."""
        try:
            (self.path / SPARE_NAME).unlink()
        except OSError:
            return False
        return True

    def remove_copies(self) -> None:
        """Removes the files that hold copies of what the database stores, finished or not.

        The unfinished go first, so that one that gets its name meanwhile goes, too. Raises GalleryUnavailable: then
        they may still be there.
        """
        self.removals += 1
        try:
            for name in (UNFINISHED_SNAPSHOT_NAME, SNAPSHOT_NAME, UNFINISHED_STAGE_NAME, STAGE_NAME):
                (self.path / name).unlink(missing_ok=True)
            self.sync()
        except OSError as error:
            raise GalleryUnavailable(
                f"The copies of the index in {self.path} cannot be removed ({error.strerror}), so nothing was erased."
            ) from error

    def watch(self, *names: str) -> None:
        """From now on `displacement` looks whether these files, which are open, are still the ones in the folder."""
        self._watched = {path: _identity(path) for path in (self.path.absolute() / name for name in names)}

    @property
    def displacement(self) -> str | None:
        """Why what is written now would be lost: somebody removed or replaced an open file. None while all is well."""
        for path, identity in self._watched.items():
            try:
                present = _identity(path)
            except OSError as error:
                return f"{path} is not there any more ({error.strerror}); put its folder back and restart the service"
            if present != identity:
                return f"{path} was replaced while it was in use; restart the service"
        return None


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino
