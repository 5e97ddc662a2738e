"""Loading for a GPU, on a machine without one: choices, refusals and advice, with CPU sessions where CUDA's would be.

What needs the card itself is in test_cuda.py.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from service.inference import gpu
from service.inference.card import Card, CudaError
from service.inference.derived import derive
from service.inference.engine import CPU, CUDA, TENSORRT, EngineError, OnnxEngine
from service.inference.gpu import memory_limit, quickest, tensorrt_options
from service.inference.loading import load_engine
from service.inference.model import ModelFile
from tests.tiny_model import HEIGHT, WIDTH


class Session(onnxruntime.InferenceSession):  # type: ignore[misc]
    """A CPU session that says it is of `provider`, and has no memory for more than `room` images."""

    def __init__(self, content: bytes, provider: str, room: int, profile: Path) -> None:
        super().__init__(content, providers=[CPU])
        self.provider, self.room, self.profile = provider, room, profile

    def get_providers(self) -> list[str]:
        return [self.provider, CPU]

    def end_profiling(self) -> str:
        node = {"cat": "Node", "args": {"op_name": "Conv", "provider": self.provider}}
        self.profile.write_text(json.dumps([node]))
        return str(self.profile)

    def run_with_iobinding(self, binding: Any, options: Any = None) -> None:
        if binding.get_outputs()[0].shape()[0] > self.room:
            raise RuntimeError("CUDA failure 2: out of memory")
        super().run_with_iobinding(binding, options)


class Machine:
    """A machine with a card, stood in for by the CPU; `opened` are the options of the sessions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.room = 64
        self.refused: set[str] = set()
        self.opened: list[dict[str, str]] = []

    def open_session(self, file: ModelFile, providers: Sequence[Any], threads: int, folder: Path) -> Session:
        provider, options = providers[0]
        self.opened.append(options)
        if refused := self.refused & set(options):
            raise EngineError(f"{sorted(refused)} cannot be had")
        if where := options.get("trt_engine_cache_path"):
            (Path(where) / "tiny.engine").write_bytes(b"kernels")
        return Session(file.content, provider, self.room, self.folder / "profile")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(tmp_path)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    monkeypatch.setattr(gpu, "cuda_major", lambda: None)
    monkeypatch.setattr(gpu, "find_card", lambda major: Card("NVIDIA H200", "9.0"))
    monkeypatch.setattr(gpu, "require_cudnn", lambda: None)
    monkeypatch.setattr(gpu, "tensorrt_version", lambda: 101_401)
    monkeypatch.setattr(gpu, "open_session", machine.open_session)
    return machine


def test_the_fp16_model_runs_under_the_sources_name(model_file: ModelFile, machine: Machine) -> None:
    engine = load_engine(model_file, "cuda", threads=1, max_batch=4)
    assert (engine.provider, engine.max_batch, engine.info.precision) == (CUDA, 4, "fp16")
    assert engine.info.sha256 == model_file.info.sha256
    assert engine.images_per_second > 0
    crops = np.random.default_rng(0).integers(0, 256, (7, HEIGHT, WIDTH, 3), np.uint8)
    expected = load_engine(model_file, "cpu", threads=1).run(crops, attention=True)
    found = engine.run(crops, attention=True)
    assert (found.embeddings * expected.embeddings).sum(axis=1).min() > 0.999
    assert found.attention is not None
    assert expected.attention is not None
    assert np.abs(found.attention - expected.attention).max() < 0.01


def test_both_layouts_are_tried_with_cuda_graphs_and_a_limit(model_file: ModelFile, machine: Machine) -> None:
    load_engine(model_file, "cuda", threads=1, max_batch=2)
    assert [options.get("prefer_nhwc") for options in machine.opened] == ["1", None]
    for options in machine.opened:
        assert options["cudnn_conv_algo_search"] == "HEURISTIC"
        assert options["enable_cuda_graph"] == "1"
        assert int(options["gpu_mem_limit"]) > 2**30


def test_without_graphs_it_runs_plainly(model_file: ModelFile, machine: Machine) -> None:
    machine.refused = {"enable_cuda_graph"}
    assert load_engine(model_file, "cuda", threads=1, max_batch=2).provider == CUDA
    assert machine.opened[-1] == {"cudnn_conv_algo_search": "HEURISTIC"}


def test_too_little_memory_is_said_with_what_to_do_and_auto_takes_the_cpu(
    model_file: ModelFile, machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING", "service.inference")
    machine.room = 4
    with pytest.raises(EngineError, match=r"at 8 images: .*out of memory.* set a lower RESIGHT_MAX_BATCH"):
        load_engine(model_file, "cuda", threads=1)
    assert load_engine(model_file, "cuda", threads=1, max_batch=4).provider == CUDA
    assert load_engine(model_file, "auto", threads=1).provider == CPU
    assert "out of memory" in caplog.messages[-1]


def test_a_machine_without_a_card_says_so(
    model_file: ModelFile, machine: Machine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none(major: int) -> Card:
        raise CudaError("there is no NVIDIA driver here")

    caplog.set_level("WARNING", "service.inference")
    monkeypatch.setattr(gpu, "find_card", none)
    with pytest.raises(EngineError, match=r"CUDAExecutionProvider does not run here: there is no NVIDIA driver here\."):
        load_engine(model_file, "cuda", threads=1)
    assert load_engine(model_file, "auto", threads=1).provider == CPU
    assert "no NVIDIA driver" in caplog.messages[-1]


def test_what_was_derived_is_kept(model_file: ModelFile, machine: Machine, tmp_path: Path) -> None:
    cache = tmp_path / "data" / "cache"
    load_engine(model_file, "cuda", threads=1, max_batch=2, cache=cache)
    assert [path.suffix for path in cache.iterdir()] == [".fp16"]
    assert cache.parent.stat().st_mode & 0o077 == 0  # it is the gallery's folder


def test_tensorrt_keeps_its_engines(
    model_file: ModelFile, machine: Machine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = tmp_path / "cache"
    for _ in range(2):
        engine = load_engine(model_file, "tensorrt", threads=1, max_batch=2, cache=cache)
        assert engine.provider == TENSORRT
    first, second = machine.opened
    assert first == second
    assert first["trt_fp16_enable"] == first["trt_timing_cache_enable"] == "1"
    assert Path(first["trt_engine_cache_path"]).parent == cache
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_engines_that_tensorrt_refuses_are_built_anew(
    model_file: ModelFile,
    machine: Machine,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load_engine(model_file, "tensorrt", threads=1, max_batch=2, cache=tmp_path / "cache")

    def once(file: ModelFile, providers: Sequence[Any], threads: int, folder: Path) -> Session:
        monkeypatch.setattr(gpu, "open_session", machine.open_session)
        assert (Path(providers[0][1]["trt_engine_cache_path"]) / "tiny.engine").exists()
        raise EngineError("could not deserialize engine from cache")

    monkeypatch.setattr(gpu, "open_session", once)
    assert load_engine(model_file, "tensorrt", threads=1, max_batch=2, cache=tmp_path / "cache").provider == TENSORRT
    [warning] = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "could not deserialize" in vars(warning)["reason"]


def test_a_cache_that_cannot_be_written_is_no_reason_not_to_start(
    model_file: ModelFile, machine: Machine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("a file, where the folder should be")
    engine = load_engine(model_file, "tensorrt", threads=1, max_batch=2, cache=tmp_path / "cache")
    assert engine.provider == TENSORRT
    assert "engines cannot be kept" in caplog.text


class Rated(OnnxEngine):
    """As quick as it is said to be."""

    def __init__(self, rate: float) -> None:
        self.images_per_second = rate


def test_the_quickest_way_that_works_is_taken() -> None:
    rates = {"a": 10.0, "b": 30.0, "c": 20.0}

    def load(options: dict[str, str]) -> Rated:
        if options["way"] not in rates:
            raise EngineError(f"{options['way']} fails")
        return Rated(rates[options["way"]])

    ways = [{"way": way} for way in "axbc"]
    assert quickest(ways, {"way": "plain"}, load).images_per_second == 30
    with pytest.raises(EngineError, match="plain fails"):
        quickest([{"way": "x"}], {"way": "plain"}, load)


def test_the_limit_grows_with_the_batch(model_file: ModelFile) -> None:
    content = derive(model_file).content
    one, many = memory_limit(content, 1), memory_limit(content, 64)
    per_image = (many - one) / 63
    assert 2 * 3 * HEIGHT * WIDTH * 4 <= per_image <= 64 * 3 * HEIGHT * WIDTH * 4


def test_tensorrt_builds_one_engine_for_all_sizes(model_file: ModelFile) -> None:
    options = tensorrt_options(model_file.info, 16, None)
    assert options["trt_profile_min_shapes"] == f"crops:1x{HEIGHT}x{WIDTH}x3"
    assert options["trt_profile_max_shapes"] == f"crops:16x{HEIGHT}x{WIDTH}x3"
    assert "trt_engine_cache_path" not in options
