"""ONNX files of our own and of other programs."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.training.retrieval.cells import HEIGHT, WIDTH, cell_means, unit, write_model
from training.data.dataset import Dataset
from training.retrieval.embedding import embed_samples
from training.retrieval.onnx_model import INPUT_LAYOUTS, OWN_LAYOUT, ModelError, OnnxModel, fixed_sizes


@pytest.mark.parametrize("name", list(INPUT_LAYOUTS))
def test_every_input_layout_reaches_a_foreign_file_right(name: str, data: Dataset, tmp_path: Path) -> None:
    layout = INPUT_LAYOUTS[name]
    element = TensorProto.UINT8 if name == OWN_LAYOUT else TensorProto.FLOAT
    path = write_model(tmp_path / "foreign.onnx", layout, element, size=("h", "w"))
    model = OnnxModel(path, layout=name, size=(HEIGHT, WIDTH), threads=1)
    expected = unit(np.stack([cell_means(sample) for sample in data.query]))
    np.testing.assert_allclose(embed_samples(model, data.query), expected, atol=1e-5)


def test_a_half_precision_input_is_fed_half_precision(data: Dataset, tmp_path: Path) -> None:
    name = "nchw-float-rgb-imagenet"
    path = write_model(tmp_path / "half.onnx", INPUT_LAYOUTS[name], TensorProto.FLOAT16)
    expected = unit(np.stack([cell_means(sample) for sample in data.query]))
    found = embed_samples(OnnxModel(path, layout=name, threads=1), data.query)
    np.testing.assert_allclose(found, expected, atol=5e-3)


def test_a_fixed_batch_is_filled_up_and_cut(data: Dataset, tmp_path: Path) -> None:
    path = write_model(tmp_path / "fixed.onnx", INPUT_LAYOUTS["nchw-float-rgb-1"], batch=4)
    model = OnnxModel(path, layout="nchw-float-rgb-1", threads=1)
    expected = unit(np.stack([cell_means(sample) for sample in data.query]))
    np.testing.assert_allclose(embed_samples(model, data.query, batch=7), expected, atol=1e-5)


def test_of_several_outputs_the_named_one_counts(data: Dataset, tmp_path: Path) -> None:
    path = write_model(tmp_path / "two.onnx", INPUT_LAYOUTS["nchw-float-rgb-1"], outputs=("features", "map"))
    with pytest.raises(ModelError, match=r"which output is the embedding.*features, map"):
        OnnxModel(path, layout="nchw-float-rgb-1")
    with pytest.raises(ModelError, match=r"no output 'logits'.*features, map"):
        OnnxModel(path, layout="nchw-float-rgb-1", output="logits")
    crops = np.zeros((2, HEIGHT, WIDTH, 3), np.uint8)
    assert OnnxModel(path, layout="nchw-float-rgb-1", output="features").embed(crops).shape == (2, 24)
    with pytest.raises(ModelError, match=r"output 'map' has the shape \(2, 3, 4, 2\)"):
        OnnxModel(path, layout="nchw-float-rgb-1", output="map").embed(crops)


def test_a_foreign_file_says_what_it_has_to_be_told(tmp_path: Path) -> None:
    path = write_model(tmp_path / "foreign.onnx", INPUT_LAYOUTS["nchw-float-rgb-1"], size=("h", "w"))
    with pytest.raises(ModelError, match="name its input layout, one of nhwc-uint8-rgb"):
        OnnxModel(path)
    with pytest.raises(ModelError, match="leaves its size open"):
        OnnxModel(path, layout="nchw-float-rgb-1")
    fixed = write_model(tmp_path / "fixed.onnx", INPUT_LAYOUTS["nchw-float-rgb-1"])
    with pytest.raises(ModelError, match="takes 64x32 crops, not 256x128"):
        OnnxModel(fixed, layout="nchw-float-rgb-1", size=(256, 128))


def test_an_own_file_takes_no_second_description(own_file: Path) -> None:
    with pytest.raises(ModelError, match="tells its input and output itself"):
        OnnxModel(own_file, size=(HEIGHT, WIDTH))


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    path = write_model(tmp_path / "later.onnx", INPUT_LAYOUTS[OWN_LAYOUT], metadata={"format": "resight/2"})
    with pytest.raises(ModelError, match="has the format 'resight/2'"):
        OnnxModel(path)


def test_an_own_file_without_its_size_is_refused(tmp_path: Path) -> None:
    path = write_model(tmp_path / "bare.onnx", INPUT_LAYOUTS[OWN_LAYOUT], metadata={"format": "resight/1"})
    with pytest.raises(ModelError, match="no height and width"):
        OnnxModel(path)


def test_bytes_are_not_fed_what_is_no_byte(tmp_path: Path) -> None:
    path = write_model(tmp_path / "bytes.onnx", INPUT_LAYOUTS[OWN_LAYOUT], TensorProto.UINT8)
    for name in ("nchw-float-rgb-imagenet", "nchw-float-rgb-half", "nchw-float-rgb-1", "nchw-float-bgr-imagenet"):
        with pytest.raises(ModelError, match=rf"bytes\.onnx takes bytes \(uint8\), which {name} would change"):
            OnnxModel(path, layout=name)


def test_a_layout_that_does_not_fit_names_those_that_do(tmp_path: Path) -> None:
    path = write_model(tmp_path / "foreign.onnx", INPUT_LAYOUTS["nchw-float-rgb-1"])
    fitting = " or ".join(name for name, layout in INPUT_LAYOUTS.items() if layout.channels_first)
    with pytest.raises(ModelError, match=rf"takes .*, which is not so laid out: name {fitting}$"):
        OnnxModel(path, layout=OWN_LAYOUT)


def rewritten(path: Path, nodes: list[onnx.NodeProto], output: onnx.ValueInfoProto, **constants: list[int]) -> Path:
    """A foreign file with more nodes behind its embedding, and an output of theirs in its place."""
    model = onnx.load(write_model(path, INPUT_LAYOUTS["nchw-float-rgb-1"]))
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(numpy_helper.from_array(np.array(v), name) for name, v in constants.items())
    del model.graph.output[:]
    model.graph.output.append(output)
    onnx.save(model, path)
    return path


def test_an_output_that_is_no_tensor_of_numbers_is_refused(tmp_path: Path) -> None:
    words = helper.make_node("Cast", ["embedding"], ["words"], to=TensorProto.STRING)
    several = helper.make_node("SequenceConstruct", ["embedding"], ["several"])
    crops = np.zeros((2, HEIGHT, WIDTH, 3), np.uint8)
    for node, output in (
        (words, helper.make_tensor_value_info("words", TensorProto.STRING, None)),
        (several, helper.make_tensor_sequence_value_info("several", TensorProto.FLOAT, None)),
    ):
        model = OnnxModel(rewritten(tmp_path / "foreign.onnx", [node], output), layout="nchw-float-rgb-1")
        with pytest.raises(ModelError, match=f"output '{output.name}' is no tensor of numbers: choose another output"):
            model.embed(crops)


def test_embeddings_whose_length_changes_are_refused(tmp_path: Path) -> None:
    """As long as the batch, here."""
    nodes = [
        helper.make_node("Flatten", ["embedding"], ["flat"]),
        helper.make_node("Shape", ["embedding"], ["rows"], start=0, end=1),
        helper.make_node("Slice", ["flat", "first", "rows", "columns"], ["cut"]),
    ]
    output = helper.make_tensor_value_info("cut", TensorProto.FLOAT, None)
    path = rewritten(tmp_path / "foreign.onnx", nodes, output, first=[0], columns=[1])
    model = OnnxModel(path, layout="nchw-float-rgb-1")
    assert model.embed(np.zeros((2, HEIGHT, WIDTH, 3), np.uint8)).shape == (2, 2)
    with pytest.raises(ModelError, match="output 'cut' has 3 values a crop and had 2 before"):
        model.embed(np.zeros((3, HEIGHT, WIDTH, 3), np.uint8))


@pytest.mark.parametrize("side", ["-5", "0", "1000000000"])
def test_an_own_file_of_an_impossible_size_is_not_the_pictures_fault(side: str, tmp_path: Path) -> None:
    metadata = {"format": "resight/1", "height": side, "width": "32"}
    layout, outputs = INPUT_LAYOUTS[OWN_LAYOUT], ("embedding", "attention")
    path = write_model(tmp_path / "own.onnx", layout, TensorProto.UINT8, metadata, size=("h", "w"), outputs=outputs)
    with pytest.raises(ModelError, match=rf"own\.onnx takes {side}x32 crops: 1 to 4096 pixels"):
        OnnxModel(path)


def test_a_path_that_is_no_utf8_is_told(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.onnx"))
    write_model(path, INPUT_LAYOUTS["nchw-float-rgb-1"])
    with pytest.raises(ModelError, match=r"caf\\xe9\.onnx: ONNX Runtime opens paths in UTF-8 only; rename it$"):
        OnnxModel(path, layout="nchw-float-rgb-1")


@pytest.mark.parametrize(
    ("batch", "size"),
    [(0, (HEIGHT, WIDTH)), (2_000_000_000, (HEIGHT, WIDTH)), (1, (100_000, 100_000)), (1, (0, WIDTH))],
)
def test_sizes_that_cannot_be_are_refused(batch: int, size: tuple[int, int]) -> None:
    layout = INPUT_LAYOUTS["nchw-float-rgb-1"]
    with pytest.raises(ModelError, match=r"foreign\.onnx takes (batches of [0,2]+ |\d+x\d+ crops: 1 to 4096)"):
        fixed_sizes(Path("foreign.onnx"), layout, [batch, 3, *size], None)
