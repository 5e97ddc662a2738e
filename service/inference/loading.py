"""The engine for a device: on TensorRT, CUDA or the CPU, and what becomes of `auto`."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import onnxruntime

from service.inference.card import driver_shows
from service.inference.engine import CPU, CUDA, TENSORRT, EngineError, OnnxEngine, open_session, self_test
from service.inference.lanes import Lanes
from service.inference.model import ModelFile

MAX_BATCH_CPU = 16
MAX_BATCH_GPU = 64

logger = logging.getLogger(__name__)


def load_engine(
    file: ModelFile, device: str, threads: int, max_batch: int | None = None, cache: Path | None = None
) -> OnnxEngine:
    """Loads, verifies, warms and self-tests the model on `device`: auto, cpu, cuda or tensorrt.

    `auto` takes CUDA where it really runs and the CPU otherwise, with a warning where this ONNX Runtime or this machine
    is made for CUDA; the others run there or raise EngineError. `threads` serve one operator on the CPU. `max_batch` is
    a power of two. `cache` is a folder for what a GPU's start makes, so that the next one is quicker.
    """
    match device:
        case "cpu":
            return _load_cpu(file, threads, max_batch or MAX_BATCH_CPU)
        case "cuda":
            return _load_gpu(file, CUDA, threads, max_batch, cache)
        case "tensorrt":
            return _load_gpu(file, TENSORRT, threads, max_batch, cache)
        case "auto":
            if CUDA in onnxruntime.get_available_providers() or driver_shows():
                try:
                    return _load_gpu(file, CUDA, threads, max_batch, cache)
                except EngineError as error:
                    logger.warning("the model runs on the CPU: %s", error)
            return _load_cpu(file, threads, max_batch or MAX_BATCH_CPU)
    raise EngineError(f"There is no device {device!r}; choose auto, cpu, cuda or tensorrt.")


def _load_cpu(file: ModelFile, threads: int, max_batch: int) -> OnnxEngine:
    engine = OnnxEngine(file.info, Lanes(partial(open_session, file, [CPU]), threads), max_batch)
    self_test(engine)
    engine.warm_up()
    return engine


def _load_gpu(file: ModelFile, provider: str, threads: int, max_batch: int | None, cache: Path | None) -> OnnxEngine:
    available = onnxruntime.get_available_providers()
    if provider not in available:
        raise EngineError(
            f"This ONNX Runtime has no {provider}, only {', '.join(available)};"
            " install the extra gpu instead of cpu, in an environment of its own, or set RESIGHT_DEVICE=cpu."
        )
    from service.inference.gpu import load_gpu  # of which a CPU has no use

    return load_gpu(file, provider, threads, max_batch or MAX_BATCH_GPU, cache)
