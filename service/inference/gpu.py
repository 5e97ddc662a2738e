"""The model on a CUDA card, by ONNX Runtime's CUDA or TensorRT provider: in half precision, in the quickest way."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from service.inference.bound import BoundRuns
from service.inference.card import Card, CudaError, cuda_major, find_card, require_cudnn, tensorrt_version
from service.inference.derived import derive_cached
from service.inference.engine import (
    CPU,
    CUDA,
    TENSORRT,
    EngineError,
    Inference,
    OnnxEngine,
    open_session,
    self_test,
    verify_nodes,
    verify_provider,
)
from service.inference.enginecache import Facts, clear, engine_folder, seal
from service.inference.model import INPUT, ModelError, ModelFile, ModelInfo
from service.priority import give_way

logger = logging.getLogger(__name__)

Options = dict[str, str]
Loaded = TypeVar("Loaded", bound=OnnxEngine)

# An exhaustive search for kernels takes seconds for each shape and wins nothing.
SEARCH: Options = {"cudnn_conv_algo_search": "HEURISTIC"}
GRAPHS: Options = {"enable_cuda_graph": "1"}
CHANNELS_LAST: Options = {"prefer_nhwc": "1"}  # as the tensor cores want them; the rest may want them otherwise
WORKSPACE_BYTES = 4 * 2**30  # cuDNN's, at most
NO_MEMORY = ("out of memory", "Failed to allocate memory", "ALLOC_FAILED", "CUDA failure 2:", "OutOfMemory")


class GpuEngine(OnnxEngine):
    """As `OnnxEngine`, through buffers of fixed sizes. Batches that fit badly leave places empty."""

    def __init__(
        self, info: ModelInfo, session: onnxruntime.InferenceSession, max_batch: int, major: int | None, graphs: bool
    ) -> None:
        super().__init__(info, session, max_batch)
        self.runs_at_once = 2  # one is put together while the other runs
        self._runs = BoundRuns(session, info, max_batch, major, graphs, give_way)

    def run(self, crops: NDArray[np.uint8], attention: bool = False) -> Inference:
        """Embeds crops [N, H, W, 3], N >= 1; raises whatever ONNX Runtime raises."""
        return Inference(*self._runs.run(crops, attention))

    def warm_up(self) -> None:
        """Runs every batch size and records its CUDA graph. Raises EngineError when one of them fails."""
        try:
            self._runs.warm_up()
        except RuntimeError as error:
            raise EngineError(f"{self.info.path} fails on {self.provider} {error}{_advice(error)}") from error
        self.images_per_second = self.max_batch / max(self._runs.seconds[self.max_batch], 1e-6)


def load_gpu(file: ModelFile, provider: str, threads: int, max_batch: int, cache: Path | None) -> OnnxEngine:
    """Derives, loads, verifies, warms and self-tests the model on `provider`. Raises EngineError with the reason."""
    try:
        major = cuda_major()
        card = find_card(major)
        onnxruntime.preload_dlls()  # finds CUDA and cuDNN where pip put them
        require_cudnn()
        if cache is not None:
            with suppress(OSError):  # said where it matters
                cache.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # the data folder, which nobody else reads
        derived = derive_cached(file, cache)
        if provider == TENSORRT:
            return _load_tensorrt(derived, card, threads, max_batch, major, cache)
    except (CudaError, ModelError) as error:
        raise EngineError(f"{provider} does not run here: {str(error).rstrip('.')}.") from error

    def load(options: Options) -> GpuEngine:
        return _load(derived, [(CUDA, options), CPU], threads, max_batch, major, "enable_cuda_graph" in options)

    limit = {"gpu_mem_limit": str(memory_limit(derived.content, max_batch))}
    limited = {**SEARCH, **limit, "arena_extend_strategy": "kSameAsRequested"}
    return quickest([{**limited, **GRAPHS, **CHANNELS_LAST}, {**limited, **GRAPHS}], SEARCH, load)


def quickest(candidates: Sequence[Options], plain: Options, load: Callable[[Options], Loaded]) -> Loaded:
    """The engine of the options that give the highest rate; `plain` ones where all others fail, whose error counts."""
    best: Loaded | None = None
    for options in candidates:
        try:
            engine = load(options)
        except EngineError as error:
            logger.warning("a way to run on the GPU fails", extra={"options": options, "reason": str(error)})
            continue
        rate = round(engine.images_per_second, 1)
        logger.info("a way to run on the GPU", extra={"options": options, "images_per_second": rate})
        if best is None or engine.images_per_second > best.images_per_second:
            best = engine
    return load(plain) if best is None else best


def _load(
    file: ModelFile, providers: Sequence[object], threads: int, max_batch: int, major: int | None, graphs: bool
) -> GpuEngine:
    with tempfile.TemporaryDirectory(prefix="resight-") as folder:
        try:
            session = open_session(file, providers, threads, Path(folder))
        except EngineError as error:
            raise EngineError(f"{error}{_advice(error)}") from error
        provider = TENSORRT if len(providers) > 2 else CUDA
        verify_provider(session, provider)
        engine = GpuEngine(file.info, session, max_batch, major, graphs)
        try:
            self_test(engine)
        except EngineError as error:
            raise EngineError(f"{error}{_advice(error)}") from error
        verify_nodes(Path(session.end_profiling()), provider)
    engine.warm_up()
    return engine


def _load_tensorrt(
    file: ModelFile, card: Card, threads: int, max_batch: int, major: int, cache: Path | None
) -> GpuEngine:
    """Building engines takes minutes; what was built for just this is taken from `cache`."""
    facts: Facts = {
        "model": file.info.sha256,
        "derivation": file.info.derivation or file.info.precision,
        "card": card.name,
        "capability": card.capability,
        "onnxruntime": onnxruntime.__version__,
        "tensorrt": tensorrt_version(),
        "max_batch": max_batch,
    }
    folder = None
    try:
        folder = None if cache is None else engine_folder(cache, facts)
        engine = _load_engines(file, threads, max_batch, major, folder)
        if folder is not None:
            seal(folder, facts)
    except OSError as error:
        logger.warning("engines cannot be kept", extra={"folder": str(folder or cache), "reason": error.strerror})
        return _load_engines(file, threads, max_batch, major, None)
    return engine


def _load_engines(file: ModelFile, threads: int, max_batch: int, major: int, folder: Path | None) -> GpuEngine:
    providers = [(TENSORRT, tensorrt_options(file.info, max_batch, folder)), (CUDA, SEARCH), CPU]
    try:
        return _load(file, providers, threads, max_batch, major, graphs=False)
    except EngineError as error:
        if folder is None or not any(folder.iterdir()):
            raise
        logger.warning("kept engines are built anew", extra={"folder": str(folder), "reason": str(error)})
        clear(folder)
        folder.mkdir(mode=0o700)
    return _load(file, providers, threads, max_batch, major, graphs=False)


def tensorrt_options(info: ModelInfo, max_batch: int, folder: Path | None) -> Options:
    """One engine for all sizes, built for the largest; kept in `folder`, with what timing its kernels has shown."""
    size = f"{info.height}x{info.width}x3"
    options = {
        "trt_fp16_enable": "1",
        "trt_profile_min_shapes": f"{INPUT}:1x{size}",
        "trt_profile_opt_shapes": f"{INPUT}:{max_batch}x{size}",
        "trt_profile_max_shapes": f"{INPUT}:{max_batch}x{size}",
    }
    if folder is not None:
        place = str(folder.absolute())
        kept = {"trt_engine_cache_path": place, "trt_timing_cache_path": place}
        options |= {"trt_engine_cache_enable": "1", "trt_timing_cache_enable": "1", **kept}
    return options


def memory_limit(content: bytes, max_batch: int) -> int:
    """Bytes of the card that the model may take: twice what lies there at once, its weights, and room for cuDNN.

    Without a limit the arena grows into what the index needs.
    """
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(content))
    sizes = {value.name: _bytes(value) for value in (*model.graph.value_info, *model.graph.output)}
    last = {name: place for place, node in enumerate(model.graph.node) for name in node.input}
    alive = most = 0
    for place, node in enumerate(model.graph.node):
        alive += sum(sizes.get(name, 0) for name in node.output)
        most = max(most, alive)
        alive -= sum(sizes.get(name, 0) for name in set(node.input) if last[name] == place)
    return 2 * max_batch * most + 3 * len(content) + WORKSPACE_BYTES


def _bytes(value: onnx.ValueInfoProto) -> int:
    """Of one image; the free axis N counts as one, and so does what is not known."""
    kind = value.type.tensor_type
    try:
        width = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)).itemsize
    except KeyError:
        return 0
    return int(np.prod([max(1, axis.dim_value) for axis in kind.shape.dim], dtype=np.int64)) * width


def _advice(error: Exception) -> str:
    if not any(sign in str(error) for sign in NO_MEMORY):
        return ""
    return (
        " The card has too little free memory: see with nvidia-smi what else takes it, stop that, or set a lower"
        " RESIGHT_MAX_BATCH."
    )
