from __future__ import annotations

import base64
import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import pytest
import torch

from service.inference.model import ImpostorCurve, read_model
from tests.training.drawn_checkpoint import draw_checkpoint, tiny_config
from training import export as command
from training.data import market1501, synthetic
from training.data.dataset import Dataset, Sample
from training.data.holdout import hold_out
from training.export import DEFAULT_PRECISIONS, export, find_output, main
from training.modelfile.graph import export_graph
from training.modelfile.half import halve
from training.modelfile.metadata import LICENCE_NOTICES
from training.modelfile.parity import ExportError, Precision
from training.modelfile.pattern import draw_pattern
from training.modelfile.quantise import quantise
from training.network.stored import Checkpoint, load_checkpoint_model
from training.retrieval.calibration import RATES, impostor_curve
from training.retrieval.embedding import embed_samples
from training.retrieval.onnx_model import OnnxModel

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
HELD_OUT = 5  # of 16 identities: 20 pictures make 160 pairs of strangers


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More people than elsewhere: int8 needs enough pictures to calibrate on when some are held out."""
    folder = tmp_path_factory.mktemp("drawn")
    synthetic.draw_market1501(folder, train_identities=16, test_identities=4, cameras=2, shots=2)
    return folder


@pytest.fixture(scope="module")
def data(drawn: Path) -> Dataset:
    return market1501.read(drawn)


@pytest.fixture(scope="module")
def checkpoint(data: Dataset) -> Checkpoint:
    changes = {"attention_scores": "sigmoid", "value_reduction": 1, "embedding_dim": 32}
    return draw_checkpoint(data, tiny_config(calibration_identities=HELD_OUT, **changes))


@pytest.fixture(scope="module")
def traced(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What PyTorch's exporter makes of the checkpoint. It is slow: it runs once, and the tests copy its file."""
    path = tmp_path_factory.mktemp("traced") / "fp32.onnx"
    export_graph(load_checkpoint_model(checkpoint), checkpoint.config, path)
    return path


@pytest.fixture(scope="module", autouse=True)
def copied_graph(traced: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "export_graph", lambda _model, _config, path: shutil.copy(traced, path))
        yield


@pytest.fixture(scope="module")
def files(checkpoint: Checkpoint, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[Precision, Path]:
    """An exported file for each precision."""
    folder = tmp_path_factory.mktemp("export")
    return {
        precision: export(
            checkpoint, data, folder / f"{precision}.onnx", precision, name="tiny", licence_notice="for the test"
        ).path
        for precision in PRECISIONS
    }


@pytest.fixture(params=PRECISIONS)
def exported(request: pytest.FixtureRequest, files: dict[Precision, Path]) -> Path:
    return files[request.param]


def test_the_service_accepts_the_file(exported: Path) -> None:
    info = read_model(exported).info
    assert (info.name, info.licence_notice) == ("tiny", "for the test")
    assert (info.height, info.width, info.embedding_dim) == (64, 32, 32)
    assert info.map_height * info.map_width == 8
    assert info.metrics is not None
    assert set(info.metrics) >= {"rank1", "mAP"}
    assert info.training_data.startswith("drawn")
    assert f"{HELD_OUT} of the identities held out" in info.training_data
    assert info.precision == exported.stem


def test_the_file_carries_its_own_answer_to_the_pattern(exported: Path) -> None:
    model = OnnxModel(exported)
    found = model.embed(draw_pattern(64, 32)[None])[0]
    expected = np.frombuffer(base64.b64decode(model.metadata["test_embedding"]), "<f4")
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_checkpoint_gives_the_same_file_again(
    checkpoint: Checkpoint, data: Dataset, files: dict[Precision, Path], tmp_path: Path
) -> None:
    """A gallery belongs to the file that made it: exporting again must not shut anybody out of theirs."""
    again = export(checkpoint, data, tmp_path / "again.onnx", "int8", name="tiny", licence_notice="for the test")
    assert again.path.read_bytes() == files["int8"].read_bytes()
    assert OnnxModel(again.path).metadata["created"] == checkpoint.environments[-1]["started"]


def test_batches_of_any_size_give_the_same_rows(exported: Path) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (7, 64, 32, 3), np.uint8)
    model = OnnxModel(exported)
    rows = np.concatenate([model.embed(crop[None]) for crop in crops])
    np.testing.assert_allclose(model.embed(crops), rows, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def producer(graph: onnx.GraphProto, output: str) -> onnx.NodeProto:
    node: onnx.NodeProto = next(node for node in graph.node if output in node.output)
    return node


def set_constant(graph: onnx.GraphProto, operator: str, change: Callable[[Any], Any]) -> None:
    """Change the constant that the first node of this type has as its second input."""
    name = next(node.input[1] for node in graph.node if node.op_type == operator)
    tensor = next(tensor for tensor in graph.initializer if tensor.name == name)
    value = onnx.numpy_helper.to_array(tensor)
    tensor.CopyFrom(onnx.numpy_helper.from_array(change(value).astype(value.dtype), name))


def no_normalisation(graph: onnx.GraphProto) -> None:
    last = producer(graph, "embedding")
    last.op_type = "Identity"
    del last.input[1:]


def wrong_mean(graph: onnx.GraphProto) -> None:
    set_constant(graph, "Sub", lambda mean: np.full_like(mean, 127.5))


def wrong_std(graph: onnx.GraphProto) -> None:
    set_constant(graph, "Div", lambda std: np.full_like(std, 127.5))


def bgr(graph: onnx.GraphProto) -> None:
    first = next(node for node in graph.node if node.op_type == "Transpose")
    first.input[0] = "reversed"
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([2, 1, 0]), "order"))
    graph.node.insert(0, onnx.helper.make_node("Gather", ["crops", "order"], ["reversed"], axis=3))


def random_layer4(graph: onnx.GraphProto) -> None:
    random = np.random.default_rng(0)
    for tensor in graph.initializer:
        if "layer4" in tensor.name and len(tensor.dims) == 4:
            value = random.normal(size=tuple(tensor.dims)).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))


def other_attention(graph: onnx.GraphProto) -> None:
    """The embedding is right, the attention beside it is not what it was made with."""
    softmax = producer(graph, "attention")
    for node in graph.node:
        for n, name in enumerate(node.input):
            node.input[n] = "true_attention" if name == "attention" else name
    softmax.output[0] = "true_attention"
    graph.node.append(onnx.helper.make_node("Mul", ["true_attention", "true_attention"], ["attention"]))


def altered(path: Path, fault: Callable[[onnx.GraphProto], None]) -> None:
    model = onnx.load(path)
    fault(model.graph)
    onnx.save(model, path)


@pytest.mark.parametrize(
    ("fault", "message", "precision"),
    [
        (no_normalisation, "no unit vectors", "fp32"),
        (wrong_mean, "has cosine", "fp32"),
        (wrong_std, "has cosine", "fp32"),
        (bgr, "has cosine", "fp32"),
        (random_layer4, "has cosine", "fp32"),
        (other_attention, "attention is", "fp32"),
        (wrong_std, "the fp32 file's embedding has cosine", "int8"),  # what int8's own bound might let through
    ],
)
def test_a_file_that_differs_is_not_written(
    checkpoint: Checkpoint,
    data: Dataset,
    traced: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[onnx.GraphProto], None],
    message: str,
    precision: Precision,
) -> None:
    def faulty(_model: object, _config: object, path: Path) -> None:
        shutil.copy(traced, path)
        altered(path, fault)

    monkeypatch.setattr(command, "export_graph", faulty)
    with pytest.raises(ExportError, match=f"{message}.*nothing was written"):
        export(checkpoint, data, tmp_path / "m.onnx", precision)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("step", "precision"), [(halve, "fp16"), (quantise, "int8")])
@pytest.mark.parametrize(("fault", "message"), [(random_layer4, "has cosine"), (no_normalisation, "no unit vectors")])
def test_what_is_made_of_the_fp32_file_is_compared_too(
    checkpoint: Checkpoint,
    data: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[onnx.GraphProto], None],
    message: str,
    step: Callable[..., Path],
    precision: Precision,
) -> None:
    def faulty(path: Path, *arguments: Any) -> Path:
        altered(path, fault)
        return step(path, *arguments)

    monkeypatch.setattr(command, step.__name__, faulty)
    with pytest.raises(ExportError, match=f"the {precision} file's embedding.*{message}.*nothing was written"):
        export(checkpoint, data, tmp_path / "m.onnx", precision)
    assert list(tmp_path.iterdir()) == []


def curve_of(path: Path) -> ImpostorCurve | None:
    """As the service reads it."""
    return read_model(path).info.impostor_curve


def test_the_curve_is_of_the_file_and_of_people_that_it_never_saw(
    exported: Path, checkpoint: Checkpoint, data: Dataset
) -> None:
    learnt, held_out = hold_out(data.train, HELD_OUT, checkpoint.config.seed)
    assert not {sample.identity for sample in learnt} & {sample.identity for sample in held_out}
    embeddings = embed_samples(OnnxModel(exported), held_out)
    expected = impostor_curve(embeddings, np.array([sample.identity for sample in held_out]))
    curve = curve_of(exported)
    assert curve is not None
    assert curve.false_match_rate == RATES
    np.testing.assert_allclose(curve.distance, expected["distance"], atol=1e-5)
    assert list(curve.extrapolated) == expected["extrapolated"]


def test_without_held_out_identities_there_is_no_curve(checkpoint: Checkpoint, data: Dataset, tmp_path: Path) -> None:
    config = replace(checkpoint.config, calibration_identities=0)
    exported = export(replace(checkpoint, config=config), data, tmp_path / "m.onnx", "fp32", measure=False)
    assert curve_of(exported.path) is None
    assert "no impostor-distance curve: no identities were held out" in exported.summary()
    assert "--set calibration_identities=N" in exported.summary()
    assert "no verdict unless RESIGHT_MATCH_DISTANCE is set" in exported.summary()


def test_other_data_give_no_curve(checkpoint: Checkpoint, data: Dataset, tmp_path: Path) -> None:
    """The people held out of one data set cannot be found in another."""
    other = replace(data, train=data.train[1:])
    exported = export(checkpoint, other, tmp_path / "m.onnx", "fp32", measure=False)
    assert curve_of(exported.path) is None
    assert f"the held-out identities are of {data.name}, not of this data" in exported.summary()
    assert exported.warnings == ()  # fp32 is not calibrated


def test_int8_calibrated_on_other_pictures_than_were_learnt_is_warned_of(
    stored: Path, data: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    synthetic.draw_market1501(tmp_path / "other", train_identities=16, test_identities=4, cameras=2, shots=2, seed=1)
    assert main([str(stored), "--data", str(tmp_path / "other"), "--no-evaluation"]) == 0
    told = f"are not those that the run learnt from ({data.name}): its figures may suffer; give the --data, "
    assert told in capsys.readouterr().err


def test_too_few_strangers_give_no_curve(checkpoint: Checkpoint, data: Dataset, tmp_path: Path) -> None:
    config = replace(checkpoint.config, calibration_identities=4)  # 16 pictures: 96 pairs
    exported = export(replace(checkpoint, config=config), data, tmp_path / "m.onnx", "fp32", measure=False)
    assert curve_of(exported.path) is None
    assert "less than 100 pairs" in exported.summary()


def test_int8_is_calibrated_on_what_was_learnt(
    checkpoint: Checkpoint, data: Dataset, traced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The curve would not be of strangers if the file had been fitted to them."""
    calibrated: list[Sample] = []

    def watched(path: Path, samples: Sequence[Sample], *arguments: Any) -> Path:
        calibrated.extend(samples)
        return quantise(path, samples, *arguments)

    monkeypatch.setattr(command, "quantise", watched)
    export(checkpoint, data, tmp_path / "m.onnx", "int8", measure=False)
    assert calibrated == list(hold_out(data.train, HELD_OUT, checkpoint.config.seed)[0])


def test_the_file_speaks_of_what_it_was_trained_on(checkpoint: Checkpoint, data: Dataset, tmp_path: Path) -> None:
    """Whatever it is exported with."""
    trained_on = {**checkpoint.state["data"], "name": "Market-1501"}
    market = replace(checkpoint, state={**checkpoint.state, "data": trained_on})
    info = read_model(export(market, data, tmp_path / "m.onnx", "fp32", measure=False).path).info
    assert info.name == "market1501-fp32"
    assert info.licence_notice == LICENCE_NOTICES["Market-1501"]
    assert info.training_data.startswith("Market-1501: ")
    assert info.source_revision.startswith("second, exported by ")


def test_the_evaluation_is_of_the_file_that_is_left(checkpoint: Checkpoint, data: Dataset, tmp_path: Path) -> None:
    exported = export(checkpoint, data, tmp_path / "m.onnx", "fp32")
    assert exported.evaluation is not None
    assert exported.evaluation.model == str(tmp_path / "m.onnx")
    assert exported.evaluation.sha256 == hashlib.sha256((tmp_path / "m.onnx").read_bytes()).hexdigest()
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


@pytest.fixture
def stored(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    """The checkpoint as a file."""
    path = tmp_path / "run" / "checkpoint.pt"
    path.parent.mkdir()
    torch.save(checkpoint.state, path)
    return path


def test_the_command_writes_beside_the_checkpoint(
    stored: Path, drawn: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", str(drawn), "--layout", "market1501", "--precision", "fp16", "--no-evaluation"]
    assert main([str(stored), *arguments]) == 0
    path = stored.with_name("model-fp16.onnx")
    info = read_model(path).info
    assert (info.precision, info.protocol, info.metrics) == ("fp16", "not evaluated", None)
    printed = capsys.readouterr()
    assert f"{path}: {path.stat().st_size / 1e6:.1f} MB" in printed.out
    assert "impostor-distance curve of 5 held-out identities" in printed.out
    assert printed.err == (
        "warning: 5 held-out people are too few for a match distance that can be trusted, which takes 30: `resight "
        "calibrate` measures one on people that were not learnt\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.pt", "--data", "DRAWN"], "absent.pt"),
        (["CHECKPOINT", "--data", "nowhere"], "nowhere"),
        (["CHECKPOINT", "--data", "DRAWN", "--layout", "dukemtmc"], "0001_c2_f0046182.jpg"),
        (["README.md", "--data", "DRAWN"], "no checkpoint of training/train.py"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str], message: str, stored: Path, drawn: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {"DRAWN": str(drawn), "CHECKPOINT": str(stored)}
    assert main([words.get(word, word) for word in arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert message in said


@pytest.mark.parametrize("option", ["--name", "--licence-notice"])
def test_words_that_no_file_could_hold_are_refused_at_once(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["absent.pt", "--data", "absent", option, os.fsdecode(b"caf\xe9")])
    assert refused.value.code == 2
    assert f"argument {option}: bytes that are no text in UTF-8" in capsys.readouterr().err


def test_the_precisions_of_a_training_run_are_known() -> None:
    assert set(DEFAULT_PRECISIONS) <= set(PRECISIONS)


def test_the_checkpoint_is_not_replaced_by_its_model_file(
    stored: Path, drawn: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = stored.read_bytes()
    assert main([str(stored), "--data", str(drawn), "--output", str(stored)]) == 2
    assert "is the checkpoint itself" in capsys.readouterr().err
    assert stored.read_bytes() == weights


def test_a_link_in_a_circle_is_a_name_like_any_other(stored: Path, tmp_path: Path) -> None:
    circle = tmp_path / "model.onnx"
    circle.symlink_to(circle)
    assert find_output(stored, circle, "int8") == circle


def test_a_folder_is_no_model_file(
    stored: Path, drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(stored), "--data", str(drawn), "--output", str(tmp_path)]) == 2
    assert f"--output {tmp_path} is a folder: name the file to write in it" in capsys.readouterr().err
    assert main([str(tmp_path), "--data", str(drawn)]) == 2
    assert "checkpoint.pt does not exist: give a run's folder or its checkpoint.pt" in capsys.readouterr().err


def test_a_full_disk_names_the_file(
    stored: Path, drawn: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(command, "export_graph", full)
    path = stored.with_name("model-fp32.onnx")
    assert main([str(stored), "--data", str(drawn), "--precision", "fp32"]) == 1
    assert capsys.readouterr().err == f"stopped: {path} could not be written ([Errno 28] No space left on device)\n"
    assert not list(stored.parent.glob(".export-*"))


def test_ctrl_c_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_path: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("training.export.read_checkpoint", interrupted)
    assert main([str(tmp_path / "checkpoint.pt"), "--data", "somewhere"]) == 130
    assert capsys.readouterr().err == "stopped: nothing was written\n"
