"""What becomes of an image that asks for its embedding: the results, and the refusals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


class QueueFull(RuntimeError):
    """More is waiting than is admitted; try again in `retry_after` seconds."""

    def __init__(self, retry_after: int, waiting: str = "images are waiting for the model") -> None:
        super().__init__(f"Too many {waiting}; try again in {retry_after} s.")
        self.retry_after = retry_after


class TooLate(RuntimeError):
    """A request waited in the queue for longer than its client can be expected to wait."""

    def __init__(
        self, message: str = "The images waited too long for the model and were dropped; send them again."
    ) -> None:
        super().__init__(message)


class WorkerStopped(RuntimeError):
    """The thread that runs the model is not running; the message says why."""


class EmbeddingFailed(RuntimeError):
    """The model gave no usable embedding for one image."""

    def __init__(self) -> None:
        super().__init__("The model gave no usable embedding for this image; the log has the reason.")


@dataclass(frozen=True, eq=False)
class Embedded:
    """One crop's `embedding` float32 [D] and, when asked for, `attention` float32 [L, L]; when the run was, in s."""

    embedding: NDArray[np.float32]
    attention: NDArray[np.float32] | None
    started: float
    finished: float


Outcome = Embedded | EmbeddingFailed


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What became of each crop, by its position; milliseconds until the first run began, and from then on."""

    outcomes: tuple[Outcome, ...]
    queue_ms: float
    inference_ms: float
