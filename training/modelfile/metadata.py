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
from training.loop.runlog import source_revision
from training.modelfile.parity import ExportError, Precision
from training.modelfile.pattern import draw_pattern
from training.network.stored import Checkpoint
from training.retrieval.onnx_model import FORMAT, open_session
from training.retrieval.protocol import Evaluation

# By the first word of a data set's name: "CUHK03 (labeled)" and "CUHK03 (detected)" are one.
LICENCE_NOTICES = {
    "Market-1501": "Trained on Market-1501: for research only; no commercial use and no distribution of the data set. "
    "Cite Zheng et al., Scalable Person Re-identification: A Benchmark, ICCV 2015.",
    "DukeMTMC-reID": "Trained on DukeMTMC-reID, which was withdrawn in 2019: for research only, where it may be used "
    "at all; no commercial use and no distribution of the data set. "
    "Cite Ristani et al., Performance Measures and a Data Set for Multi-Target, Multi-Camera Tracking, ECCVW 2016.",
    "CUHK03": "Trained on CUHK03: for research only; no commercial use and no distribution of the data set. "
    "Cite Li et al., DeepReID: Deep Filter Pairing Neural Network for Person Re-Identification, CVPR 2014.",
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
    trained_on, last_start = checkpoint.data_name, checkpoint.environments[-1]
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
        "licence_notice": licence_notice or known_notice(trained_on),
        "protocol": "not evaluated",
        "config_sha256": config.sha256(),
        "test_embedding": base64.b64encode(embedding[0].astype("<f4").tobytes()).decode(),
        # Of training, not of export: a checkpoint gives the same file again, and a gallery knows its model by the file.
        "created": last_start.get("started") or datetime.now(UTC).isoformat(timespec="seconds"),
        "source_revision": f"{last_start.get('revision', 'unknown')}, exported by {source_revision()}",
    }


def map_size(config: Config) -> tuple[int, int]:
    """Rows and columns of the last feature map: stem, pooling and two stages halve it, the last stage if it strides."""
    reduction = 16 * config.last_stride
    return math.ceil(config.height / reduction), math.ceil(config.width / reduction)


def known_notice(data_name: str) -> str:
    """What is known about the licence of a data set."""
    return LICENCE_NOTICES.get(data_name.partition(" ")[0], f"Trained on {data_name}.")


def training_data(checkpoint: Checkpoint) -> str:
    """Everything that the network learnt from: pictures, pretrained weights, teacher; and what was kept from it."""
    state, config = checkpoint.state, checkpoint.config
    train = state["data"]["train"]
    cameras = f"{train['cameras']} cameras" if train["cameras"] else "cameras unknown"
    facts = [
        f"{train['images']:,} pictures of {train['identities']:,} identities, {cameras}"
        + (f", {config.calibration_identities} of the identities held out" if config.calibration_identities else ""),
        f"{state['epoch']} epochs" + (f", running mean of the weights ({config.ema} a step)" if config.ema else ""),
        f"backbone {state['initialisation']}",
        *([] if state["teacher"] == "none" else [f"distilled from {state['teacher']}"]),
    ]
    return f"{checkpoint.data_name}: {'; '.join(facts)}"


def architecture(config: Config) -> str:
    """The network in words: every choice of `Config` that changes what is computed."""
    blocks = "resnet50" if config.layers == (3, 4, 6, 3) and config.base_width == 64 else f"resnet{config.layers}"
    if config.base_width != 64:
        blocks += f" of width {config.base_width}"
    parts = [
        blocks,
        f"stride in the {config.stride_placement} convolution",
        f"last stride {config.last_stride}",
        *([f"instance norms behind {behind(config)}"] if config.instance_norms else []),
        attention(config),
        "mean over the map",
    ]
    if config.embedding_dim:
        parts.append(f"projection to {config.embedding_dim}")
    if config.bnneck:
        parts.append("bnneck")
    return ", ".join(parts)


def behind(config: Config) -> str:
    """The stages that end in an instance norm."""
    return " and ".join(["stem", "layer1", "layer2", "layer3"][: config.instance_norms])


def attention(config: Config) -> str:
    """What follows the last feature map, in words; `scale_scores` and `value_reduction` are self-attention's."""
    match config.attention:
        case "none":
            return "no attention"
        case "spatial":
            return f"spatial attention ({config.attention_scores})"
        case "self":
            value = "full" if config.value_reduction == 1 else f"1/{config.value_reduction}"
            scores = "scaled" if config.scale_scores else "unscaled"
            return f"self-attention ({config.attention_scores}, {scores} scores, value path {value})"


def measured(evaluation: Evaluation) -> dict[str, str]:
    """What was measured on the file, as metadata."""
    figures = evaluation.metrics.figures()
    return {
        "protocol": f"{evaluation.data} {evaluation.split} part: {evaluation.protocol}",
        "metrics": json.dumps({key: round(float(value), 6) for key, value in figures.items()}),
    }


def write_metadata(path: Path, metadata: dict[str, str]) -> None:
    """Put the metadata into the file, in place."""
    model = onnx.load(path)
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    forget_source(model)
    onnx.save(model, path)


def forget_source(model: onnx.ModelProto) -> None:
    """Takes out the exporter's notes on every node: lines of code, under the paths of the machine that exported it."""
    for node in model.graph.node:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        value.ClearField("metadata_props")
