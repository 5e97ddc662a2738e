from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.training.drawn_checkpoint import draw_checkpoint, tiny_config
from training.config import Config
from training.data.dataset import Dataset
from training.data.images import read_crop
from training.modelfile.graph import export_graph
from training.modelfile.half import halve
from training.modelfile.parity import Precision, Reference
from training.modelfile.quantise import quantise
from training.network.stored import load_checkpoint_model

# Self-attention by sigmoid, with a projection, is what tests/training/test_export.py exports.
KINDS = {
    "self": tiny_config(),
    "spatial": tiny_config(attention="spatial", last_stride=2),
    "none": tiny_config(attention="none", bnneck=False, instance_norms=3),
}


@dataclass(frozen=True)
class Traced:
    """A network, what it answers to real crops, and its file in each precision."""

    config: Config
    reference: Reference
    files: dict[Precision, Path]


@pytest.fixture(scope="session", params=list(KINDS))
def traced(request: pytest.FixtureRequest, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Traced:
    """Every kind of attention once: PyTorch's exporter is slow."""
    config = KINDS[request.param]
    model = load_checkpoint_model(draw_checkpoint(data, config))
    path = tmp_path_factory.mktemp(request.param) / "fp32.onnx"
    export_graph(model, config, path)
    crops = np.stack([read_crop(sample, config.height, config.width) for sample in data.gallery[:14]])
    files: dict[Precision, Path] = {"fp32": path, "fp16": halve(path), "int8": quantise(path, data.train, config)}
    return Traced(config, Reference.of(model, crops), files)
