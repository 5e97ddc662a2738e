from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import onnx
import pytest
import torch

from tests.training.drawn_checkpoint import draw_checkpoint, tiny_config
from tests.training.modelfile.conftest import Traced
from training.config import Config, build_config
from training.data.cuhk03 import CUHK03
from training.data.dataset import Dataset
from training.data.dukemtmc import DUKEMTMC
from training.data.market1501 import MARKET1501
from training.modelfile.metadata import (
    LICENCE_NOTICES,
    architecture,
    known_notice,
    map_size,
    training_data,
    write_metadata,
)
from training.network.resnet import ResNet
from training.network.stored import Checkpoint


@pytest.mark.parametrize("last_stride", [1, 2])
@pytest.mark.parametrize("size", [(256, 128), (64, 32), (100, 50), (33, 65)])
def test_the_map_has_the_size_that_the_network_makes(size: tuple[int, int], last_stride: Literal[1, 2]) -> None:
    config = Config(height=size[0], width=size[1], last_stride=last_stride)
    with torch.inference_mode():
        shape = ResNet((1, 1, 1, 1), 1, last_stride).eval()(torch.zeros(1, 3, *size)).shape
    assert map_size(config) == shape[2:]


def test_the_architecture_of_the_presets() -> None:
    assert architecture(build_config("paper")) == (
        "resnet50, stride in the 1x1 convolution, last stride 2, "
        "self-attention (softmax, unscaled scores, value path full), mean over the map"
    )
    assert architecture(build_config("strong")) == (
        "resnet50, stride in the 1x1 convolution, last stride 1, "
        "self-attention (softmax, scaled scores, value path full), mean over the map, bnneck"
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"attention": "none"}, "no attention"),
        ({"attention": "spatial"}, "spatial attention (softmax)"),
        ({"attention_scores": "sigmoid"}, "self-attention (sigmoid, "),
        ({"value_reduction": 8}, "value path 1/8)"),
        ({"embedding_dim": 512}, "projection to 512"),
        ({"instance_norms": 2}, "instance norms behind stem and layer1"),
        ({"stride_placement": "3x3"}, "stride in the 3x3 convolution"),
        ({"base_width": 32}, "of width 32"),
        ({"layers": [1, 1, 1, 1]}, "resnet(1, 1, 1, 1)"),
    ],
)
def test_every_choice_shows_in_the_architecture(settings: dict[str, Any], words: str) -> None:
    assert words in architecture(Config.from_dict(settings))
    assert words not in architecture(Config())


@pytest.fixture(scope="module")
def drawn_checkpoint(data: Dataset) -> Checkpoint:
    return draw_checkpoint(data, tiny_config())


def test_the_training_data_are_all_that_was_learnt_from(drawn_checkpoint: Checkpoint, data: Dataset) -> None:
    assert training_data(drawn_checkpoint) == (
        f"{data.name}: 32 pictures of 8 identities, 2 cameras; 2 epochs; backbone drawn"
    )
    more = replace(
        drawn_checkpoint,
        state=drawn_checkpoint.state | {"teacher": "a.npy"},
        config=replace(drawn_checkpoint.config, calibration_identities=3, ema=0.999),
    )
    assert training_data(more) == (
        f"{data.name}: 32 pictures of 8 identities, 2 cameras, 3 of the identities held out; "
        "2 epochs, running mean of the weights (0.999 a step); backbone drawn; distilled from a.npy"
    )


@pytest.mark.parametrize("benchmark", [MARKET1501, DUKEMTMC, *CUHK03.values()], ids=lambda benchmark: benchmark.name)
def test_the_published_data_sets_have_a_notice(benchmark: Any) -> None:
    assert known_notice(benchmark.name) in LICENCE_NOTICES.values()
    assert "research only" in known_notice(benchmark.name)


@pytest.mark.parametrize("name", ["own-data", "market1501", ""])
def test_nothing_is_said_of_the_licence_of_other_data(name: str) -> None:
    assert known_notice(name) == f"Trained on {name}."


def test_a_file_says_nothing_of_the_machine_that_made_it(traced: Traced, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    shutil.copy(traced.files["int8"], path)
    assert b"/training/network/" in traced.files["fp32"].read_bytes()  # as the exporter leaves it
    write_metadata(path, {"name": "tiny"})
    assert b"/training/network/" not in path.read_bytes()
    assert not any(node.metadata_props or node.doc_string for node in onnx.load(path).graph.node)
