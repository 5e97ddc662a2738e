"""How this process keeps its memory."""

from __future__ import annotations

import ctypes
import gc

# Of glibc's <malloc.h>.
M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8
PICTURE_BYTES = 64 * 1024  # less than a decoded crop takes
ARENAS = 2
YOUNG_OBJECTS = 20_000  # made before Python looks for rings among them: those of some ten requests


def keep_steady() -> bool:
    """Gives what is as large as a crop pages of its own, which go back to the system with it; False without glibc.

    Crops are decoded in some threads and let go in another one. Left alone, glibc puts them among small things
    that live longer, in as many heaps as there are threads: a service under load then grows for hours.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(M_MMAP_THRESHOLD, PICTURE_BYTES) and mallopt(M_ARENA_MAX, ARENAS))


def settle() -> None:
    """Takes what the start has made out of Python's search for rings of dead objects, which costs queries 4 %."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])
