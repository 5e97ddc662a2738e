"""Reading .npy files, and nothing that only looks like them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def read_array(path: Path) -> NDArray[Any]:
    """The array in a .npy file.

    Raises:
        ValueError: it is another file (.npz and .pt too), cut short, empty or not there; the message names it.
    """
    try:
        # Mapped first: a header may promise more than the file holds, and than the memory does.
        with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # a size that overflows
            mapped = np.lib.format.open_memmap(path, mode="r")
        return np.array(mapped)
    except OSError as error:
        raise ValueError(f"{path} is no readable .npy file: {error.strerror or error}") from error
    except (ValueError, EOFError, TypeError, OverflowError, MemoryError) as error:
        raise ValueError(f"{path} is no readable .npy file: {error}") from error
