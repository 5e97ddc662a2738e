"""What runs a model: ONNX Runtime on a provider that really runs it, verified, warmed and self-tested."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from service.inference.lanes import Lanes
from service.inference.model import (
    ATTENTION,
    EMBEDDING,
    INPUT,
    ModelFile,
    ModelInfo,
    forbid_external_data,
)
from service.inference.pattern import draw_pattern
from service.priority import give_way

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"

SELF_TEST_COSINE = 0.99


class EngineError(RuntimeError):
    """The model does not run here as it must; the message says why."""


@dataclass(frozen=True, eq=False)
class Inference:
    """`embeddings` float32 [N, D], unit L2 norm; `attention` float32 [N, L, L] when it was asked for."""

    embeddings: NDArray[np.float32]
    attention: NDArray[np.float32] | None = None


class Engine(Protocol):
    """Turns crops into embeddings, by as many threads at once as it says."""

    @property
    def runs_at_once(self) -> int:
        """How many `run` may be under way."""

    @property
    def info(self) -> ModelInfo: ...

    @property
    def provider(self) -> str:
        """ONNX Runtime's name of the provider that really runs."""

    @property
    def images_per_second(self) -> float:
        """The rate measured at the largest batch during warm-up."""

    def run(self, crops: NDArray[np.uint8], attention: bool = False) -> Inference:
        """Embeds crops [N, H, W, 3]."""


class OnnxEngine:
    """An ONNX Runtime session that runs up to `max_batch` crops at a time."""

    def __init__(self, info: ModelInfo, session: onnxruntime.InferenceSession | Lanes, max_batch: int) -> None:
        self.info = info
        self.provider: str = session.get_providers()[0]
        self.runs_at_once = session.runs_at_once if isinstance(session, Lanes) else 1
        self.max_batch = max_batch
        self.images_per_second = 0.0
        self._session = session

    def run(self, crops: NDArray[np.uint8], attention: bool = False) -> Inference:
        """Embeds crops [N, H, W, 3], N >= 1; raises whatever ONNX Runtime raises."""
        wanted = [EMBEDDING, ATTENTION] if attention else [EMBEDDING]
        starts = range(0, len(crops), self.max_batch)
        runs = [self._session.run(wanted, {INPUT: crops[start : start + self.max_batch]}) for start in starts]
        outputs = [np.concatenate(parts) for parts in zip(*runs, strict=True)]
        return Inference(outputs[0], outputs[1] if attention else None)

    def warm_up(self) -> None:
        """Runs a lone crop and the largest batch, with and without attention, and measures the rate of the latter.

        Raises EngineError when one of them fails.
        """
        pattern = draw_pattern(self.info.height, self.info.width)
        for size in sorted({1, self.max_batch}):
            batch = np.repeat(pattern[None], size, axis=0)
            try:
                self.run(batch, attention=True)
                started = time.perf_counter()
                self.run(batch)
            except Exception as error:  # too little memory, for example
                raise EngineError(f"{self.info.path} fails on {self.provider} at {size} images: {error}") from error
        self.images_per_second = self.max_batch / max(time.perf_counter() - started, 1e-6)


def open_session(
    file: ModelFile, providers: Sequence[Any], threads: int, profiles: Path | None = None
) -> onnxruntime.InferenceSession:
    """A session on the first of `providers`, as ONNX Runtime takes them; raises EngineError.

    Into a folder `profiles`, it writes who runs what.
    """
    options = onnxruntime.SessionOptions()
    forbid_external_data(options)
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads spin while they wait for each other within a run; between runs, the cores belong to decoding and search.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if profiles is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profiles / "profile")
    try:
        with ThreadPoolExecutor(1, initializer=give_way) as thread:  # ONNX Runtime's threads inherit its priority
            return thread.submit(onnxruntime.InferenceSession, file.content, options, providers=providers).result()
    except Exception as error:  # ONNX Runtime's own errors share no base class.
        provider = providers[0] if isinstance(providers[0], str) else providers[0][0]
        raise EngineError(f"{file.info.path} does not load on {provider}: {error}") from error


def verify_provider(session: onnxruntime.InferenceSession, wanted: str) -> None:
    """ONNX Runtime falls back in silence when a provider's libraries do not load."""
    got = session.get_providers()[0]
    if got != wanted:
        raise EngineError(
            f"{wanted} was asked for but ONNX Runtime fell back to {got}: driver, CUDA and cuDNN"
            " do not fit this build; its messages above name the missing library."
        )


def verify_nodes(profile: Path, wanted: str) -> None:
    """A provider may be there and still leave the work to another: asks the profile who ran what."""
    ran = providers_of(json.loads(profile.read_text()))
    astray = sorted(op for op, providers in ran.items() if "Conv" in op and providers != {wanted})
    if astray:
        raise EngineError(f"{wanted} is loaded, but these operators ran elsewhere: {', '.join(astray)}.")
    if not any(wanted in providers for providers in ran.values()):
        raise EngineError(f"{wanted} is loaded, but no operator of the model ran on it.")


def providers_of(events: list[dict[str, Any]]) -> dict[str, set[str]]:
    """From ONNX Runtime's profile: operator -> the providers that ran it."""
    ran: dict[str, set[str]] = {}
    for event in events:
        facts = event.get("args", {})
        if event.get("cat") == "Node" and "provider" in facts:
            ran.setdefault(facts.get("op_name", ""), set()).add(facts["provider"])
    return ran


def self_test(engine: Engine) -> None:
    """Raises EngineError unless the drawn pattern embeds as the file says: wrong kernels, drivers, preprocessing."""
    info = engine.info
    try:
        inference = engine.run(draw_pattern(info.height, info.width)[None], attention=True)
    except Exception as error:
        raise EngineError(f"{info.path} fails on {engine.provider}: {error}") from error
    check(inference, 1, info)
    expected = info.test_embedding
    cosine = float(inference.embeddings[0] @ expected / np.linalg.norm(expected))
    if not cosine >= SELF_TEST_COSINE:
        raise EngineError(
            f"Self-test failed: on {engine.provider} the test pattern's embedding has cosine {cosine:.4f}"
            f" to the one in {info.path}, {SELF_TEST_COSINE} is needed; this machine computes the model wrongly."
        )


def check(inference: Inference, count: int, info: ModelInfo) -> None:
    """Raises EngineError unless the outputs have their shapes, are finite, and embeddings have unit norm."""
    embeddings, attention = inference.embeddings, inference.attention
    if embeddings.shape != (count, info.embedding_dim):
        raise EngineError(f"The model gave embeddings of shape {embeddings.shape}.")
    norms = np.linalg.norm(embeddings, axis=1)
    if not np.all(np.abs(norms - 1) < 1e-2):  # also false for NaN and infinity
        raise EngineError("The model gave an embedding that is not a finite vector of length one.")
    if attention is None:
        return
    if attention.shape != (count, info.positions, info.positions):
        raise EngineError(f"The model gave attention of shape {attention.shape}.")
    if not np.all(np.isfinite(attention)):
        raise EngineError("The model gave attention that is not finite.")
