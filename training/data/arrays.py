"""Reading .npy files, and nothing that only looks like them."""

from __future__ import annotations

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
        with path.open("rb") as file:
            array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} is no readable .npy file: {error}") from error
    return array
