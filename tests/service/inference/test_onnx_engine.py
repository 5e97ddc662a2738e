"""The engine on the CPU, and its refusals: wrong devices, wrong results."""

from __future__ import annotations

import base64
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from service import priority
from service.inference import card
from service.inference.engine import EngineError, Inference, check, providers_of, verify_nodes
from service.inference.lanes import parts_of
from service.inference.loading import load_engine
from service.inference.model import ModelFile, ModelInfo, read_model
from tests.tiny_model import DIM, HEIGHT, POSITIONS, WIDTH, write_tiny_model


@pytest.mark.parametrize("lanes", [1, 2, 3, 16])
def test_parts_shrink_and_none_is_lost(lanes: int) -> None:
    assert parts_of(16, 2) == [4, 4, 2, 2, 1, 1, 1, 1]
    for count in range(1, 130):
        parts = parts_of(count, lanes)
        assert sum(parts) == count
        assert parts == sorted(parts, reverse=True)
        assert parts[-1] == 1


def test_lanes_embed_as_one_thread_does(model_file: ModelFile) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (37, HEIGHT, WIDTH, 3), np.uint8)
    alone = load_engine(model_file, "cpu", threads=1, max_batch=16).run(crops, attention=True)
    lanes = load_engine(model_file, "cpu", threads=3, max_batch=16)
    with ThreadPoolExecutor(lanes.runs_at_once) as threads:
        for both in threads.map(lambda _: lanes.run(crops, attention=True), range(4)):
            np.testing.assert_allclose(both.embeddings, alone.embeddings, atol=1e-6)
            assert both.attention is not None
            assert alone.attention is not None
            np.testing.assert_allclose(both.attention, alone.attention, atol=1e-6)


def test_it_embeds_whatever_the_number(model_file: ModelFile) -> None:
    loaded = load_engine(model_file, "cpu", threads=1, max_batch=4)
    crops = np.random.default_rng(0).integers(0, 256, (7, HEIGHT, WIDTH, 3), np.uint8)
    both = loaded.run(crops, attention=True)
    assert both.attention is not None
    assert both.attention.shape == (7, POSITIONS, POSITIONS)
    assert np.allclose(both.attention.sum(axis=2), 1, atol=1e-5)
    alone = [loaded.run(crop[None]) for crop in crops]
    assert all(one.attention is None for one in alone)
    assert np.allclose(both.embeddings, np.concatenate([one.embeddings for one in alone]), atol=1e-6)
    assert loaded.provider == "CPUExecutionProvider"
    assert loaded.images_per_second > 0


def test_auto_takes_the_cpu_with_its_largest_batch(model_file: ModelFile) -> None:
    assert load_engine(model_file, "auto", threads=1).max_batch == 16


@pytest.mark.parametrize("gpu", [True, False])
def test_auto_says_what_to_install_only_where_a_gpu_is(
    model_file: ModelFile, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path, gpu: bool
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    monkeypatch.setattr(card, "DRIVER_VERSION", tmp_path if gpu else tmp_path / "none")
    monkeypatch.setenv("PATH", "")
    caplog.set_level("WARNING", "service.inference")
    assert load_engine(model_file, "auto", threads=1).provider == CPU
    said = [record for record in caplog.records if record.name == "service.inference.loading"]
    assert [record.levelname for record in said] == ["WARNING"] * gpu
    assert all("install the extra gpu instead of cpu, in an environment of its own" in one.message for one in said)


def test_a_driver_shows_by_nvidia_smi_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(card, "DRIVER_VERSION", tmp_path / "none")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not card.driver_shows()
    (tmp_path / "nvidia-smi").touch(0o755)
    assert card.driver_shows()


@pytest.mark.parametrize(("device", "name"), [("cuda", "CUDA"), ("tensorrt", "Tensorrt")])
def test_a_device_that_is_not_there_is_an_error(model_file: ModelFile, device: str, name: str) -> None:
    """The build of ONNX Runtime lacks the provider, or has it and falls back: both must refuse."""
    if f"{name}ExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine may really have the device")
    with pytest.raises(EngineError, match=f"{name}ExecutionProvider.*RESIGHT_DEVICE=cpu"):
        load_engine(model_file, device, threads=1)


def test_an_unknown_device_is_an_error(model_file: ModelFile) -> None:
    with pytest.raises(EngineError, match="tpu"):
        load_engine(model_file, "tpu", threads=1)


def test_a_wrong_self_test_embedding_refuses(tmp_path: Path) -> None:
    other = np.full(DIM, DIM**-0.5, "<f4")
    path = write_tiny_model(tmp_path / "m.onnx", {"test_embedding": base64.b64encode(other.tobytes()).decode()})
    with pytest.raises(EngineError, match="Self-test failed"):
        load_engine(read_model(path), "cpu", threads=1)


def test_what_was_verified_is_what_runs(tmp_path: Path) -> None:
    file = read_model(write_tiny_model(tmp_path / "m.onnx"))
    (tmp_path / "m.onnx").write_bytes(b"replaced meanwhile")
    assert load_engine(file, "cpu", threads=1).info is file.info


def node(op: str, provider: str) -> dict[str, object]:
    return {"cat": "Node", "args": {"op_name": op, "provider": provider}}


CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


@pytest.mark.parametrize(
    ("events", "complaint"),
    [
        ([node("FusedConv", CUDA), node("Shape", CPU)], None),
        ([node("Conv", CUDA), node("Conv", CPU)], "Conv"),
        ([node("QLinearConv", CPU), node("MatMul", CUDA)], "QLinearConv"),
        ([node("MatMul", CPU)], "no operator"),
        ([{"cat": "Session", "args": {}}], "no operator"),
    ],
)
def test_the_profile_says_where_convolutions_ran(
    tmp_path: Path, events: list[dict[str, object]], complaint: str | None
) -> None:
    profile = tmp_path / "profile.json"
    profile.write_text(json.dumps(events))
    if complaint is None:
        verify_nodes(profile, CUDA)
        return
    with pytest.raises(EngineError, match=complaint):
        verify_nodes(profile, CUDA)


def test_a_real_profile_is_understood(model_path: Path, tmp_path: Path) -> None:
    """Guards the verification against another ONNX Runtime naming things otherwise."""
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    session = onnxruntime.InferenceSession(model_path.read_bytes(), options, providers=[CPU])
    session.run(["embedding"], {"crops": np.zeros((1, HEIGHT, WIDTH, 3), np.uint8)})
    ran = providers_of(json.loads(Path(session.end_profiling()).read_text()))
    assert any("Conv" in op for op in ran)
    assert set().union(*ran.values()) == {CPU}


def unit_rows(count: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    rows = np.zeros((count, DIM), np.float32)
    rows[:, 0] = 1
    return rows


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, 3.0])
def test_an_embedding_that_is_no_unit_vector_is_an_error(model_info: ModelInfo, value: float) -> None:
    rows = unit_rows(3)
    check(Inference(rows), 3, model_info)
    rows[1, 0] = value
    with pytest.raises(EngineError, match="length one"):
        check(Inference(rows), 3, model_info)


def test_wrong_shapes_and_attention_are_errors(model_info: ModelInfo) -> None:
    rows = unit_rows(2)
    with pytest.raises(EngineError, match="shape"):
        check(Inference(rows), 3, model_info)
    with pytest.raises(EngineError, match="attention of shape"):
        check(Inference(rows, np.zeros((2, 3, 3), np.float32)), 2, model_info)
    with pytest.raises(EngineError, match="not finite"):
        check(Inference(rows, np.full((2, POSITIONS, POSITIONS), np.nan, np.float32)), 2, model_info)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux knows priorities of threads")
def test_a_thread_gives_way_to_the_main_one_and_once_is_enough() -> None:
    def priorities() -> list[int]:
        seen = []
        for _ in range(3):
            priority.give_way()
            seen.append(os.getpriority(os.PRIO_PROCESS, 0))
        return seen

    main = os.getpriority(os.PRIO_PROCESS, os.getpid())
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(priorities).result() == [min(main + priority.NICENESS, 19)] * 3
    assert os.getpriority(os.PRIO_PROCESS, os.getpid()) == main
