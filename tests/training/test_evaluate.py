"""Evaluating ONNX files of our own and of others, checkpoints, and embeddings; the command."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console

from training.config import Config
from training.data import market1501
from training.data.dataset import DataError, Dataset, Sample
from training.data.images import to_crop
from training.data.synthetic import draw_market1501
from training.evaluate import main
from training.network.model import ReIDNet
from training.network.stored import load_checkpoint_model, read_checkpoint
from training.retrieval.embedding import embed_samples
from training.retrieval.onnx_model import INPUT_LAYOUTS, OWN_LAYOUT, InputLayout, ModelError, OnnxModel
from training.retrieval.protocol import Evaluation, evaluate, evaluate_embeddings, ranking_of
from training.retrieval.torch_model import TorchModel

HEIGHT, WIDTH = 64, 32
CELL = 16  # the embedding is the mean colour of each cell of this many pixels


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    draw_market1501(folder, train_identities=3, test_identities=5, cameras=2, shots=3)
    return folder


@pytest.fixture(scope="module")
def data(folder: Path) -> Dataset:
    return market1501.read(folder)


@pytest.fixture(scope="module")
def own_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("own") / "own.onnx"
    metadata = {"format": "resight/1", "height": str(HEIGHT), "width": str(WIDTH)}
    return write_model(path, INPUT_LAYOUTS[OWN_LAYOUT], TensorProto.UINT8, metadata, outputs=("embedding", "attention"))


def write_model(
    path: Path,
    layout: InputLayout,
    element: int = TensorProto.FLOAT,
    metadata: dict[str, str] | None = None,
    batch: int | str = "n",
    size: tuple[int | str, int | str] = (HEIGHT, WIDTH),
    outputs: Sequence[str] = ("embedding",),
) -> Path:
    """Write a network of cell means that undoes `layout` first: all of them embed a crop alike, as [N, D, 1, 1]."""
    shape = [batch, 3, *size] if layout.channels_first else [batch, *size, 3]
    constants: dict[str, NDArray[Any]] = {
        "std": np.asarray(layout.std, np.float32).reshape(1, 3, 1, 1),
        "mean": np.asarray(layout.mean, np.float32).reshape(1, 3, 1, 1),
        "scale": np.asarray(layout.scale * 255, np.float32),
        "grey": np.asarray(0.5, np.float32),
        "order": np.asarray([2, 1, 0] if layout.bgr else [0, 1, 2], np.int64),
        "shape": np.asarray([0, -1, 1, 1], np.int64),
    }
    to_planes = helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2])
    if layout.channels_first:
        to_planes = helper.make_node("Identity", ["float"], ["planes"])
    nodes = [
        helper.make_node("Cast", ["crops"], ["float"], to=TensorProto.FLOAT),
        to_planes,
        helper.make_node("Mul", ["planes", "std"], ["scaled"]),
        helper.make_node("Add", ["scaled", "mean"], ["shifted"]),
        helper.make_node("Div", ["shifted", "scale"], ["unit"]),
        helper.make_node("Gather", ["unit", "order"], ["rgb"], axis=1),
        helper.make_node("Sub", ["rgb", "grey"], ["centred"]),
        helper.make_node("AveragePool", ["centred"], ["cells"], kernel_shape=[CELL] * 2, strides=[CELL] * 2),
        helper.make_node("Reshape", ["cells", "shape"], [outputs[0]]),
        *(helper.make_node("Identity", ["cells"], [name]) for name in outputs[1:]),
    ]
    graph = helper.make_graph(
        nodes,
        "cells",
        [helper.make_tensor_value_info("crops", element, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return path


def cell_means(sample: Sample) -> NDArray[np.float32]:
    """What the network computes, without the network."""
    crop = to_crop(sample.read(), HEIGHT, WIDTH).astype(np.float32) / 255 - np.float32(0.5)
    cells = crop.reshape(HEIGHT // CELL, CELL, WIDTH // CELL, CELL, 3).mean((1, 3))
    return np.asarray(cells.transpose(2, 0, 1).ravel(), np.float32)


def unit(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True), np.float32)


def test_an_own_file_needs_nothing_told(own_file: Path, data: Dataset, tmp_path: Path) -> None:
    found = evaluate(OnnxModel(own_file, threads=1), data, batch=4, save=tmp_path)
    ranking = ranking_of(data, "test")
    for name, samples in (("query", ranking.query), ("gallery", ranking.gallery)):
        expected = unit(np.stack([cell_means(sample) for sample in samples]))
        saved = np.load(tmp_path / f"{name}.npy")
        assert saved.dtype == np.float32
        np.testing.assert_allclose(saved, expected, atol=1e-5)
    assert (found.size, found.dim, found.split, found.flip) == ((HEIGHT, WIDTH), 24, "test", False)
    assert (found.queries, found.gallery) == (10, 23)  # 5 identities x 2 cameras x 2 shots, 3 distractors
    assert found.metrics.queries == 10


def test_junk_is_not_embedded_and_distractors_are(data: Dataset) -> None:
    identities = {sample.identity for sample in ranking_of(data, "test").gallery}
    assert -1 in {sample.identity for sample in data.gallery}
    assert -1 not in identities
    assert 0 in identities


@pytest.mark.parametrize("batch", [1, 5, 64])
def test_batches_change_neither_order_nor_figures(own_file: Path, data: Dataset, batch: int) -> None:
    model = OnnxModel(own_file, threads=1)
    expected = unit(np.stack([cell_means(sample) for sample in data.query]))
    heard: list[int] = []
    found = embed_samples(model, data.query, batch, advance=heard.append)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert sum(heard) == len(data.query)
    assert max(heard) <= batch


def test_flip_is_the_mean_of_both_unit_embeddings(own_file: Path, data: Dataset) -> None:
    model = OnnxModel(own_file, threads=1)
    crops = np.stack([to_crop(sample.read(), HEIGHT, WIDTH) for sample in data.query])
    mirrored = np.ascontiguousarray(crops[:, :, ::-1])
    expected = unit(unit(model.embed(crops)) + unit(model.embed(mirrored)))
    found = embed_samples(model, data.query, flip=True)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert not np.allclose(found, embed_samples(model, data.query))


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


def test_saved_embeddings_give_the_figures_again(own_file: Path, data: Dataset, tmp_path: Path) -> None:
    first = evaluate(OnnxModel(own_file), data, save=tmp_path)
    again = evaluate_embeddings(tmp_path, data)
    assert again.metrics == first.metrics
    assert again.sha256 is None
    assert first.sha256 is not None
    assert len(first.sha256) == 64


def test_embeddings_of_other_pictures_are_refused(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no readable \.npy"):
        evaluate_embeddings(tmp_path, data)
    np.save(tmp_path / "query.npy", np.zeros((3, 8), np.float32))
    with pytest.raises(DataError, match=r"query.npy holds float32 \(3, 8\): floats \(10, D\)"):
        evaluate_embeddings(tmp_path, data)


def test_a_ranking_of_the_training_part(own_file: Path, data: Dataset) -> None:
    ranking = ranking_of(data, "train")
    assert len(ranking.query) == 6  # 3 identities x 2 cameras
    assert set(ranking.query).isdisjoint(ranking.gallery)
    assert len(ranking.query) + len(ranking.gallery) == len(data.train)
    assert evaluate(OnnxModel(own_file), data, split="train").queries == 6


def test_a_training_part_without_a_gallery_is_refused(data: Dataset) -> None:
    lone = Dataset("lone", ranking_of(data, "train").query, data.query, data.gallery)
    with pytest.raises(DataError, match="there is no gallery"):
        ranking_of(lone, "train")


def test_a_damaged_picture_is_named(own_file: Path, data: Dataset) -> None:
    broken = Sample("0004_c1s1_000400_00.jpg", 4, 1, 12, lambda: b"\xff\xd8 no picture")
    with pytest.raises(DataError, match=r"0004_c1s1_000400_00\.jpg: not a readable picture"):
        embed_samples(OnnxModel(own_file), [*data.query[:5], broken], batch=2)


def test_a_useless_embedding_is_named(data: Dataset) -> None:
    class Collapsed:
        height, width = HEIGHT, WIDTH

        def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
            return np.zeros((len(crops), 4), np.float32)

    with pytest.raises(DataError, match=f"{data.query[0].name}: its embedding is zero"):
        embed_samples(Collapsed(), data.query)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = Config(layers=(1, 1, 1, 1), base_width=8, height=HEIGHT, width=WIDTH)
    path = tmp_path_factory.mktemp("run") / "checkpoint.pt"
    state = {"config": config.to_dict(), "classes": 3, "model": ReIDNet(config, 3).state_dict(), "epoch": 60}
    state |= {"data": {"name": "drawn"}, "teacher": "none", "initialisation": "from scratch"}
    torch.save(state, path)
    return path


def test_a_checkpoint_is_evaluated_at_its_own_size(checkpoint: Path, data: Dataset, tmp_path: Path) -> None:
    found = evaluate(TorchModel(checkpoint), data, batch=4, save=tmp_path)
    assert found.size == (HEIGHT, WIDTH)
    saved = np.load(tmp_path / "query.npy")
    assert saved.shape == (10, found.dim)
    np.testing.assert_allclose(np.linalg.norm(saved, axis=1), 1, atol=1e-5)
    crops = np.stack([to_crop(sample.read(), HEIGHT, WIDTH) for sample in data.query])
    with torch.inference_mode():
        expected, _ = load_checkpoint_model(read_checkpoint(checkpoint))(torch.from_numpy(crops))
    np.testing.assert_allclose(saved, expected.numpy(), atol=1e-5)
    assert saved.std(axis=0).max() > 1e-4  # pictures differ in it


def test_the_command_prints_json(own_file: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(own_file), "--data", str(folder), "--json", "--batch", "8", "--threads", "1"]) == 0
    printed = json.loads(capsys.readouterr().out)
    found = evaluate(OnnxModel(own_file), market1501.read(folder))
    assert printed["rank1"] == pytest.approx(found.metrics.rank(1))
    assert printed["metrics"]["mAP"] == pytest.approx(found.metrics.mAP)
    assert printed["metrics"]["mAP_official"] == pytest.approx(found.metrics.mAP_official)
    assert len(printed["metrics"]["cmc"]) == 50
    assert (printed["queries"], printed["gallery"], printed["sha256"]) == (10, 23, found.sha256)


def test_the_command_prints_a_table(
    checkpoint: Path, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main([str(checkpoint), "--data", str(folder), "--flip", "--split", "train"]) == 0
    printed = capsys.readouterr()
    for word in ("rank-1", "rank-20", "mAP", "mAP official", "mINP", "flip on", "6 queries"):
        assert word in printed.out
    assert "Traceback" not in printed.err


def test_progress_is_shown_on_the_given_console(own_file: Path, data: Dataset) -> None:
    screen = io.StringIO()
    evaluate(OnnxModel(own_file), data, console=Console(file=screen, force_terminal=True, width=100))
    assert "33/33" in screen.getvalue()


def test_the_data_may_lie_in_zips(own_file: Path, folder: Path, tmp_path: Path) -> None:
    for part in ("bounding_box_train", "bounding_box_test", "query"):
        with zipfile.ZipFile(tmp_path / f"{part}.zip", "w") as archive:
            for path in (folder / part).iterdir():
                archive.write(path, f"{part}/{path.name}")
    zips, folders = market1501.read(tmp_path), market1501.read(folder)
    assert evaluate(OnnxModel(own_file), zips).metrics == evaluate(OnnxModel(own_file), folders).metrics


def failing(arguments: Sequence[object], capsys: pytest.CaptureFixture[str]) -> str:
    """The message of a command that must fail with 2 and print no figures."""
    assert main([str(argument) for argument in arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err


def test_bad_input_is_said_in_a_sentence(
    own_file: Path, checkpoint: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "model.onnx"
    text.write_text("not a model")
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"not a checkpoint")
    none = tmp_path / "none.onnx"
    assert f"{none}: no such file" in failing([none, "--data", folder], capsys)
    assert "is no ONNX file" in failing([text, "--data", folder], capsys)
    assert "is no checkpoint" in failing([broken, "--data", folder], capsys)
    assert "bounding_box_train" in failing([own_file, "--data", tmp_path], capsys)
    assert "is no folder" in failing([own_file, "--data", tmp_path / "nowhere"], capsys)
    assert "ready embeddings" in failing([folder, "--data", folder, "--flip"], capsys)
    assert "are for ONNX files" in failing([checkpoint, "--data", folder, "--size", "64x32"], capsys)
    assert "--device is for checkpoints" in failing([own_file, "--data", folder, "--device", "cpu"], capsys)
    assert "abacus is unknown" in failing([checkpoint, "--data", folder, "--device", "abacus"], capsys)
    state = torch.load(checkpoint, weights_only=True)
    torch.save({"model": state["model"], "config": state["config"]}, broken)
    assert "it has no epoch, classes, initialisation, teacher, data" in failing([broken, "--data", folder], capsys)
    torch.save({**state, "config": {**state["config"], "half_size_epochs": 14, "width": 64}, "epoch": 14}, broken)
    assert "stopped after 14 epochs" in failing([broken, "--data", folder], capsys)


@pytest.mark.parametrize("arguments", [["--size", "256"], ["--batch", "0"], ["--threads", "-1"], ["--split", "val"]])
def test_options_that_mean_nothing_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["model.onnx", "--data", "folder", *arguments])
    assert stopped.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_an_onnx_file_is_evaluated_without_torch(own_file: Path, folder: Path) -> None:
    program = (
        "import sys; from training.evaluate import main\n"
        f"assert main([{str(own_file)!r}, '--data', {str(folder)!r}, '--json']) == 0\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["split"] == "test"


def test_an_evaluation_is_json(own_file: Path, data: Dataset) -> None:
    evaluation: Evaluation = evaluate(OnnxModel(own_file), data)
    assert json.loads(json.dumps(evaluation.as_dict()))["protocol"].startswith("single query")
