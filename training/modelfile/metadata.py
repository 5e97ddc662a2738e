"""What a model file says about itself: the contract that the service reads."""

from __future__ import annotations

import base64
import json
import math
from datetime import UTC, datetime
from pathlib import Path

import onnx

from training.config import Config
from training.data.dataset import short_name
from training.data.market1501 import ORIGINAL_NAME
from training.loop.runlog import source_revision
from training.modelfile.parity import ExportError, Precision
from training.modelfile.pattern import draw_pattern
from training.network.stored import Checkpoint
from training.retrieval.onnx_model import FORMAT, open_session
from training.retrieval.protocol import PROTOCOLS, Evaluation

LICENCE_NOTICES = {
    ORIGINAL_NAME: "Trained on Market-1501: for research only; no commercial use and no distribution of the data set. "
    "Cite Zheng et al., Scalable Person Re-identification: A Benchmark, ICCV 2015."
}


def describe(
    checkpoint: Checkpoint, path: Path, precision: Precision, name: str | None, licence_notice: str | None
) -> dict[str, str]:
    """The metadata of the file at `path` before it is evaluated; `name` and `licence_notice` have defaults.

    Raises:
        ExportError: the attention is not over the map that the settings make.
    """
    config = checkpoint.config
    pattern = draw_pattern(config.height, config.width)[None]
    embedding, attention = open_session(path).run(["embedding", "attention"], {"crops": pattern})
    rows, columns = map_size(config)
    if attention.shape[1:] != (rows * columns, rows * columns):
        raise ExportError(f"attention {attention.shape[1:]} is not over {rows} x {columns} positions")
    trained_on = checkpoint.data_name
    return {
        "format": FORMAT,
        "name": name or f"{short_name(trained_on)}-{precision}",
        "architecture": architecture(config),
        "embedding_dim": str(embedding.shape[1]),
        "height": str(config.height),
        "width": str(config.width),
        "map_height": str(rows),
        "map_width": str(columns),
        "colour": "RGB",
        "resize": "pillow-bilinear",
        "distance": "euclidean/2",
        "precision": precision,
        "training_data": training_data(checkpoint),
        "licence_notice": licence_notice or LICENCE_NOTICES.get(trained_on, f"Trained on {trained_on}."),
        "protocol": "not evaluated",
        "config_sha256": config.sha256(),
        "test_embedding": base64.b64encode(embedding[0].astype("<f4").tobytes()).decode(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "source_revision": f"{checkpoint.environments[-1].get('revision', 'unknown')}, exported by {source_revision()}",
    }


def map_size(config: Config) -> tuple[int, int]:
    """Rows and columns of the last feature map: stem, pooling and two stages halve it, the last stage if it strides."""
    reduction = 16 * config.last_stride
    return math.ceil(config.height / reduction), math.ceil(config.width / reduction)


def training_data(checkpoint: Checkpoint) -> str:
    """Everything that the network learnt from: pictures, pretrained weights, teacher."""
    state = checkpoint.state
    train = state["data"]["train"]
    size = f"{train['images']:,} pictures of {train['identities']:,} identities, {train['cameras']} cameras"
    distilled = "" if state["teacher"] == "none" else f"; distilled from {state['teacher']}"
    return f"{checkpoint.data_name}: {size}; {state['epoch']} epochs; backbone {state['initialisation']}{distilled}"


def architecture(config: Config) -> str:
    """The network in words: every choice of `Config` that changes what is computed."""
    blocks = "resnet50" if config.layers == (3, 4, 6, 3) and config.base_width == 64 else f"resnet{config.layers}"
    if config.base_width != 64:
        blocks += f" of width {config.base_width}"
    value = "full" if config.value_reduction == 1 else f"1/{config.value_reduction}"
    scores = "scaled" if config.scale_scores else "unscaled"
    neck = ", bnneck" if config.bnneck else ""
    return (
        f"{blocks}, stride in the {config.stride_placement} convolution, last stride {config.last_stride}, "
        f"self-attention (softmax, {scores} scores, value path {value}){neck}"
    )


def measured(evaluation: Evaluation) -> dict[str, str]:
    """What was measured on the file, as metadata."""
    metrics = evaluation.metrics
    figures = {f"rank{k}": metrics.rank(k) for k in (1, 5, 10, 20)}
    figures |= {"mAP": metrics.mAP, "mAP_official": metrics.mAP_official, "mINP": metrics.mINP}
    return {
        "protocol": f"{evaluation.data} {evaluation.split} part: {PROTOCOLS[evaluation.split]}",
        "metrics": json.dumps({key: round(float(value), 6) for key, value in figures.items()}),
    }


def write_metadata(path: Path, metadata: dict[str, str]) -> None:
    """Put the metadata into the file, in place."""
    model = onnx.load(path)
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    onnx.save(model, path)
