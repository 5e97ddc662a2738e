"""Short memory, said in one sentence: on a card, or on the machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

ON_CPU = ("DefaultCPUAllocator", "not enough memory", "could not create a memory object", "allocate memory")


class OutOfMemory(RuntimeError):
    """The memory of the device or of the machine does not suffice; the message says what takes less."""


@contextmanager
def enough_memory() -> Iterator[None]:
    """What needs memory for a network and its batches.

    Raises:
        OutOfMemory: it is not there.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_short(error):
            raise
        where = "the card" if isinstance(error, torch.OutOfMemoryError) else "this machine"
        raise OutOfMemory(
            f"the memory of {where} does not suffice: lower identities or shots (pictures of a batch), or height and "
            "width, or end what else uses it; complete epochs are kept"
        ) from error


def _is_short(error: Exception) -> bool:
    """On a CPU torch raises a plain RuntimeError."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return any(sign in str(error) for sign in ON_CPU)
