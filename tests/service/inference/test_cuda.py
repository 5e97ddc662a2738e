"""The CUDA and TensorRT engines on a real card: `make test-gpu`. Skipped, saying so, where there is none."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from service.inference.card import CudaError, cuda_major, find_card, pin, tensorrt_version
from service.inference.engine import CUDA, TENSORRT
from service.inference.images import decode_crop
from service.inference.loading import load_engine
from service.inference.model import ModelFile, read_model
from service.jobs.optimize import agreement

ROOT = Path(__file__).parents[3]


def missing() -> str | None:
    """Why this machine cannot run these tests."""
    if CUDA not in onnxruntime.get_available_providers():
        return "this ONNX Runtime is built without CUDA: install the extra gpu instead of cpu"
    try:
        find_card(cuda_major())
    except CudaError as error:
        return str(error)
    return None


pytestmark = [pytest.mark.gpu, pytest.mark.skipif(missing() is not None, reason=str(missing()))]


def drawn(count: int, file: ModelFile) -> NDArray[np.uint8]:
    shape = (count, file.info.height, file.info.width, 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def test_cuda_really_runs_and_embeds_as_the_cpu_does(model_file: ModelFile) -> None:
    crops = drawn(13, model_file)
    cuda = load_engine(model_file, "cuda", threads=1)
    assert cuda.provider == CUDA
    expected = load_engine(model_file, "cpu", threads=1).run(crops, attention=True)
    found = cuda.run(crops, attention=True)
    assert (found.embeddings * expected.embeddings).sum(axis=1).min() > 0.999
    assert found.attention is not None
    assert expected.attention is not None
    np.testing.assert_allclose(found.attention, expected.attention, atol=1e-2)


def test_every_number_of_crops_gives_what_each_gives_alone(model_file: ModelFile) -> None:
    """Sizes played from CUDA graphs, and places left empty."""
    engine = load_engine(model_file, "cuda", threads=1, max_batch=16)
    crops = drawn(40, model_file)
    alone = np.concatenate([engine.run(crop[None]).embeddings for crop in crops])
    for count in (1, 2, 3, 5, 8, 13, 16, 17, 40):
        np.testing.assert_allclose(engine.run(crops[:count]).embeddings, alone[:count], atol=2e-3)


def test_the_shipped_model_embeds_as_on_the_cpu(caplog: pytest.LogCaptureFixture) -> None:
    file = read_model(ROOT / "models" / "market1501-int8.onnx")
    paths = sorted((ROOT / "examples" / "crops").glob("*.jpg"))
    crops = np.stack([decode_crop(path.read_bytes(), file.info.height, file.info.width) for path in paths])
    with caplog.at_level(logging.INFO, "service.inference"):
        cuda = load_engine(file, "cuda", threads=1)
    expected = load_engine(file, "cpu", threads=2).run(crops).embeddings
    found = agreement(expected, cuda.run(crops).embeddings, "int8")
    assert found.cosine_least > 0.985
    assert found.nearest > 0.9
    assert [record for record in caplog.records if vars(record).get("cuda_graphs")], "no CUDA graph paid"


def test_memory_is_locked() -> None:
    onnxruntime.preload_dlls()
    assert pin(np.empty(2**20, np.uint8), cuda_major())


def test_tensorrt_runs_and_starts_quicker_from_its_cache(model_file: ModelFile, tmp_path: Path) -> None:
    try:
        find_card(cuda_major())
        onnxruntime.preload_dlls()
        tensorrt_version()
    except CudaError as error:
        pytest.skip(str(error))
    crops = drawn(5, model_file)
    expected = load_engine(model_file, "cpu", threads=1).run(crops).embeddings
    for _ in range(2):
        engine = load_engine(model_file, "tensorrt", threads=1, max_batch=4, cache=tmp_path / "cache")
        assert engine.provider == TENSORRT
        assert (engine.run(crops).embeddings * expected).sum(axis=1).min() > 0.999
    (folder,) = (tmp_path / "cache").glob("tensorrt-*")
    assert list(folder.glob("*.engine"))
