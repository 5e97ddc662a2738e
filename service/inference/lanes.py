"""How the CPU's cores share a batch: each takes a part of it, instead of all working at every operator together.

Threads that share operators wait for each other some hundred times in a run, and for long when something else has one
of the cores; threads with crops of their own wait once, at the end. A lone crop has no parts and gets all threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from service.priority import give_way

NewSession = Callable[[int], onnxruntime.InferenceSession]


class Lanes:
    """Runs a model on the CPU like the session that it stands for; two runs at once, so that no lane waits between.

    `new_session` makes a session whose operators run on so many threads.
    """

    runs_at_once = 2

    def __init__(self, new_session: NewSession, threads: int) -> None:
        self._together = new_session(threads)
        self._lanes = threads
        self._alone = self._together if threads == 1 else new_session(1)
        self._pool = ThreadPoolExecutor(threads, "resight-lane", initializer=give_way)

    def get_providers(self) -> Sequence[str]:
        providers: Sequence[str] = self._together.get_providers()
        return providers

    def run(self, wanted: Sequence[str], feed: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The wanted outputs for the one input of the feed, whose first axis counts crops."""
        ((name, crops),) = feed.items()
        if len(crops) == 1 or self._lanes == 1:
            outputs: list[NDArray[Any]] = self._together.run(wanted, feed)
            return outputs
        parts = np.split(crops, np.cumsum(parts_of(len(crops), self._lanes))[:-1])
        runs = [self._pool.submit(self._alone.run, wanted, {name: part}) for part in parts]
        return [np.concatenate(pieces) for pieces in zip(*(run.result() for run in runs), strict=True)]


def parts_of(count: int, lanes: int) -> list[int]:
    """Sizes that shrink towards the end, where lanes would wait for the slowest: 16 for 2 lanes -> 4 4 2 2 1 1 1 1.

    A lane takes its next part when it has finished one: what else happens on its core only makes it take fewer.
    """
    sizes = []
    while count:
        size = max(1, count // (2 * lanes))
        sizes += [size] * min(lanes, count // size)
        count -= size * min(lanes, count // size)
    return sizes
