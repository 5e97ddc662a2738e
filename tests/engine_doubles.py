"""An engine that fails on purpose, for the faults that no model file can be made to show."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from service.inference.engine import Inference
from service.inference.model import ModelInfo

Fault = Callable[[NDArray[np.uint8], Inference], None]


class FaultyEngine:
    """Embeds a crop as a unit vector along its first pixel's red value, then lets `fault` interfere.

    `gate` holds every run until it is set; `batches` records the sizes that were run.
    """

    def __init__(self, info: ModelInfo, fault: Fault | None = None) -> None:
        self.info = info
        self.runs_at_once = 1
        self.provider = "FaultyExecutionProvider"
        self.images_per_second = 100.0
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.batches: list[int] = []
        self._fault = fault

    def run(self, crops: NDArray[np.uint8], attention: bool = False) -> Inference:
        self.entered.set()
        self.gate.wait(10)
        self.batches.append(len(crops))
        embeddings = np.zeros((len(crops), self.info.embedding_dim), np.float32)
        embeddings[np.arange(len(crops)), crops[:, 0, 0, 0] % self.info.embedding_dim] = 1
        size = self.info.positions
        maps = np.full((len(crops), size, size), 1 / size, np.float32) if attention else None
        inference = Inference(embeddings, maps)
        if self._fault is not None:
            self._fault(crops, inference)
        return inference
