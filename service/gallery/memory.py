"""Whether the embeddings of a gallery fit into memory, asked before they are read."""

from __future__ import annotations

from pathlib import Path

from service.gallery.records import GalleryUnavailable

MEMINFO = Path("/proc/meminfo")
LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container


def require_memory(crops: int, dim: int) -> None:
    """Raises GalleryUnavailable for more embeddings than this machine, or container, has memory for.

    Where the system does not tell (it is not Linux), nothing is known and nothing raised.
    """
    needed, free = crops * 2 * dim, _free()
    if free is not None and needed > free:
        raise GalleryUnavailable(
            f"The embeddings of {crops:,} crops take {needed / 2**30:.1f} GiB of memory, {free / 2**30:.1f} are free:"
            " set RESIGHT_INDEX=compressed, which keeps them on the disk, or give the service more memory."
        )


def _free() -> int | None:
    try:
        fields = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        machine = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return None
    try:
        return min(machine, int(LIMIT.read_text()))
    except (OSError, ValueError):  # no container, or one without a limit
        return machine
