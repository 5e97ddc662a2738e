"""Room on the gallery's disk: enrolling ends before it is used up, so that queries, erasures and logs go on."""

from __future__ import annotations

import shutil
from pathlib import Path

LEAST_BYTES = 256 * 2**20
LEAST_SHARE = 0.05  # of a small disk, which could never have as much


def free_bytes(folder: Path) -> int | None:
    """Bytes that are free on the disk of `folder`; None where the folder is not there to ask."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def shortage(folder: Path) -> str | None:
    """Why nothing more should be enrolled into `folder`, None while there is room. Asks the file system."""
    try:
        disk = shutil.disk_usage(folder)
    except OSError:  # what is wrong with the folder, the gallery says
        return None
    least = min(LEAST_BYTES, LEAST_SHARE * disk.total)
    if disk.free >= least:
        return None
    return f"the disk of the gallery is nearly full: {disk.free / 2**20:.0f} MiB are free, {least / 2**20:.0f} are kept"
