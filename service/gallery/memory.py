"""Whether the embeddings of a gallery fit into memory, asked before they are read."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

from service.gallery.cagra import DEGREE
from service.gallery.card import BLOCK
from service.gallery.records import GalleryUnavailable

MEMINFO = Path("/proc/meminfo")
LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container
CUDA_RUNTIMES = ("libcudart.so.13", "libcudart.so.12")  # FAISS's build has loaded one of them
FAISS_WORKS_WITH = 2 * 2**30  # bytes on the card, for the rows and for a graph each
GRAPH_LINKS = 3 * DEGREE * 4  # bytes a crop: those of a CAGRA graph, and twice as many while it is built


def require_memory(crops: int, dim: int) -> None:
    """Raises GalleryUnavailable for more embeddings than this machine, or container, has memory for.

    Where the system does not tell (it is not Linux), nothing is known and nothing raised.
    """
    needed, free = crops * 2 * dim, free_memory()
    if free is not None and needed > free:
        raise GalleryUnavailable(
            f"The embeddings of {crops:,} crops take {needed / 2**30:.1f} GiB of memory, {free / 2**30:.1f} are free:"
            " set RESIGHT_INDEX=compressed, which keeps them on the disk, or give the service more memory."
        )


def require_card_memory(crops: int, dim: int, graph: bool) -> None:
    """Raises GalleryUnavailable for more embeddings than the card has memory for, with a `graph` over them or without.

    Where CUDA does not tell, nothing is known and nothing raised.
    """
    needed, free = card_bytes(crops, dim, graph), free_on_card()
    if free is not None and needed > free:
        without = "" if not graph else f"RESIGHT_INDEX=exact, which takes {_gib(card_bytes(crops, dim, False))}; "
        raise GalleryUnavailable(
            f"The embeddings of {crops:,} crops{' and the graph over them' if graph else ''} take {_gib(needed)} of the"
            f" GPU's memory, {_gib(free)} are free: set {without}RESIGHT_INDEX=ivf, which searches on the CPU; or stop"
            " what else nvidia-smi shows on it, or take a GPU with more memory."
        )


def card_bytes(crops: int, dim: int, graph: bool) -> int:
    """What searches on a GPU take of its memory: float16 values and a squared norm a crop, and one block twice.

    A graph takes the values again; while it is built, also its links three times and half a byte a value (IVF-PQ).
    """
    rows = crops * (2 * dim + 4) + min(crops, BLOCK) * 2 * dim + FAISS_WORKS_WITH
    return rows + (crops * (2 * dim + dim // 2 + GRAPH_LINKS) + FAISS_WORKS_WITH if graph else 0)


def free_on_card(load: Callable[[str], Any] = ctypes.CDLL) -> int | None:
    """Bytes free on the first card that CUDA shows, None where CUDA does not tell."""
    for name in CUDA_RUNTIMES:
        try:
            runtime = load(name)
        except OSError:
            continue
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        if runtime.cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total)) == 0:
            return free.value
    return None


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def free_memory() -> int | None:
    """Bytes free on this machine, or in this container; None where the system does not tell."""
    try:
        fields = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        machine = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return None
    try:
        return min(machine, int(LIMIT.read_text()))
    except (OSError, ValueError):  # no container, or one without a limit
        return machine
