"""A network like that of a model file, with random weights: as fast as a trained one, and of no other use."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import numpy as np
import onnx

from training.config import Config
from training.modelfile.graph import export_graph
from training.modelfile.half import halve
from training.modelfile.metadata import write_metadata
from training.modelfile.pattern import draw_pattern
from training.network.model import Embedder, ReIDNet
from training.retrieval.onnx_model import open_session

CLASSES = 2  # of the classifier, which is no part of what is served


def config_of(words: str, dim: int = 0) -> Config:
    """The settings that a model file's `architecture` describes, for those choices that the service's files make.

    `dim` above 0 adds a projection to so many values. Raises ValueError for words that describe no such network.
    """
    stride, value = re.search(r"last stride ([12])", words), re.search(r"value path (full|1/8)", words)
    if not words.startswith("resnet50,") or stride is None or value is None:
        raise ValueError(f"no network is known for the architecture {words!r}")
    return Config(
        last_stride=1 if stride[1] == "1" else 2,
        stride_placement="3x3" if "stride in the 3x3" in words else "1x1",
        value_reduction=1 if value[1] == "full" else 8,
        scale_scores="unscaled scores" not in words,
        bnneck="bnneck" in words,
        embedding_dim=dim,
    )


def _metadata(model: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(model).metadata_props}


def fresh_network(like: Path, dim: int = 0) -> Embedder:
    """Of the architecture of the model file `like`."""
    return Embedder(ReIDNet(config_of(_metadata(like)["architecture"], dim), CLASSES))


def fresh_file(like: Path, folder: Path, precision: str, dim: int = 0) -> Path:
    """A file of that architecture in fp32 or fp16, with all that a service asks of one."""
    metadata = _metadata(like)
    config = config_of(metadata["architecture"], dim)
    path = folder / "fresh.onnx"
    export_graph(fresh_network(like, dim), config, path)
    if precision == "fp16":
        path = halve(path)
    pattern = draw_pattern(config.height, config.width)[None]
    (embedding,) = open_session(path).run(["embedding"], {"crops": pattern})
    expected = base64.b64encode(np.asarray(embedding[0], "<f4").tobytes()).decode()
    said = {
        "name": f"fresh-{precision}",
        "precision": precision,
        "embedding_dim": str(len(embedding[0])),
        "test_embedding": expected,
    }
    write_metadata(path, metadata | said)
    return path
