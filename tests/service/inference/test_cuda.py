"""The CUDA engine on a real card: `make test-gpu`. Skipped, saying so, where there is none."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from service.inference.engine import load_engine
from service.inference.model import ModelFile

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        "CUDAExecutionProvider" not in onnxruntime.get_available_providers(),
        reason="this ONNX Runtime is built without CUDA: install resight[gpu] instead of resight[cpu]",
    ),
]


def test_cuda_really_runs_and_embeds_as_the_cpu_does(model_file: ModelFile) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (13, model_file.info.height, model_file.info.width, 3), np.uint8)
    cuda = load_engine(model_file, "cuda", threads=1)
    assert cuda.provider == "CUDAExecutionProvider"
    expected = load_engine(model_file, "cpu", threads=1).run(crops, attention=True)
    found = cuda.run(crops, attention=True)
    np.testing.assert_allclose(found.embeddings, expected.embeddings, atol=1e-3)
    assert found.attention is not None
    assert expected.attention is not None
    np.testing.assert_allclose(found.attention, expected.attention, atol=1e-3)
