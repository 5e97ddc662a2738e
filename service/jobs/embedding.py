"""Pictures through the model, for jobs: no queue and no deadline, but a bad picture still fails alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from service.inference.engine import Engine, check, self_test

Key = TypeVar("Key")


def embed(
    pictures: Sequence[tuple[Key, NDArray[np.uint8]]], engine: Engine
) -> tuple[list[tuple[Key, NDArray[np.float32]]], list[Key]]:
    """Embeds crops [H, W, 3], each with the key it is known by: the embeddings [D], and the keys that get none.

    Raises EngineError when it is not the picture but the engine: no crop is given up for that.
    """
    if not pictures:
        return [], []
    try:
        inference = engine.run(np.stack([picture for _, picture in pictures]))
        check(inference, len(pictures), engine.info)
    except Exception:  # whatever ONNX Runtime raises
        if len(pictures) == 1:
            self_test(engine)
            return [], [pictures[0][0]]
        parts = [embed([one], engine) for one in pictures]
        return [pair for good, _ in parts for pair in good], [key for _, bad in parts for key in bad]
    return [(key, vector) for (key, _), vector in zip(pictures, inference.embeddings, strict=True)], []
