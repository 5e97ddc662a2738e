"""The command that measures a model file, a checkpoint or ready embeddings."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from tests.training.data.drawing import write_pictures
from training.data.reading import read
from training.evaluate import main
from training.retrieval.onnx_model import OnnxModel
from training.retrieval.protocol import evaluate


def test_the_command_prints_json(own_file: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(own_file), "--data", str(folder), "--json", "--batch", "8", "--threads", "1"]) == 0
    printed = json.loads(capsys.readouterr().out)
    found = evaluate(OnnxModel(own_file), read(folder))
    assert printed["rank1"] == pytest.approx(found.metrics.rank(1))
    assert printed["metrics"]["mAP"] == pytest.approx(found.metrics.mAP)
    assert printed["metrics"]["mAP_official"] == pytest.approx(found.metrics.mAP_official)
    assert len(printed["metrics"]["cmc"]) == 50
    assert (printed["queries"], printed["gallery"], printed["sha256"]) == (10, 23, found.sha256)


def test_the_command_prints_a_table(
    checkpoint_file: Path, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main([str(checkpoint_file), "--data", str(folder), "--flip", "--split", "train"]) == 0
    printed = capsys.readouterr()
    for word in ("rank-1", "rank-20", "mAP", "mAP official", "mINP", "flip on", "6 queries"):
        assert word in printed.out
    assert "Traceback" not in printed.err


def failing(arguments: Sequence[object], capsys: pytest.CaptureFixture[str]) -> str:
    """The message of a command that must fail with 2 and print no figures."""
    assert main([str(argument) for argument in arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err


def test_where_nothing_can_be_saved_nothing_is_embedded(
    own_file: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(OnnxModel, "embed")
    (tmp_path / "file").touch()
    told = failing([own_file, "--data", folder, "--save", tmp_path / "file"], capsys)
    assert f"error: {tmp_path / 'file'} cannot be a folder" in told


def test_embeddings_that_cannot_be_written_are_no_bad_input(
    own_file: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "query.npy.partial").symlink_to("/dev/full")
    assert main([str(own_file), "--data", str(folder), "--save", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert f"stopped: {tmp_path / 'query.npy'} could not be written (" in printed.err
    assert printed.out == ""


def test_bad_input_is_said_in_a_sentence(
    own_file: Path, checkpoint_file: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
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
    assert "does not exist" in failing([own_file, "--data", tmp_path / "nowhere"], capsys)
    assert "ready embeddings" in failing([folder, "--data", folder, "--flip"], capsys)
    assert "are for ONNX files" in failing([checkpoint_file, "--data", folder, "--size", "64x32"], capsys)
    assert "--device is for checkpoints" in failing([own_file, "--data", folder, "--device", "cpu"], capsys)
    assert "abacus is unknown" in failing([checkpoint_file, "--data", folder, "--device", "abacus"], capsys)
    state = torch.load(checkpoint_file, weights_only=True)
    torch.save({"model": state["model"], "config": state["config"]}, broken)
    assert "it has no epoch, classes, initialisation, teacher, data" in failing([broken, "--data", folder], capsys)
    torch.save({**state, "config": {**state["config"], "half_size_epochs": 14, "width": 64}, "epoch": 14}, broken)
    assert "stopped after 14 epochs" in failing([broken, "--data", folder], capsys)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--size", "256"],
        ["--size", "256x99999"],
        ["--batch", "0"],
        ["--batch", "9" * 5000],
        ["--threads", "-1"],
        ["--threads", "1000000000000"],
        ["--split", "val"],
    ],
)
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


def test_everything_that_can_be_asked_for_is_printed(
    own_file: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    asked = ["--rerank", "--multi-query", "--camera-pairs", "--single-gallery-shot"]
    command = [str(own_file), "--data", str(folder), "--layout", "market1501", *asked, "--save", str(tmp_path)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    for words in ("re-ranked", "multi-query", "single gallery shot", "rank-1 by cameras", "mAP by cameras"):
        assert words in printed
    assert main([str(tmp_path), "--data", str(folder), *asked, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["reranked"]["protocol"] == "k-reciprocal re-ranking, k1 20, k2 6, lambda 0.3"
    assert {"multi_query", "camera_pairs", "single_gallery_shot"} <= set(values)


def test_the_data_sets_notes_are_printed_beside(
    own_file: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(own_file), "--data", str(folder), "--json"]) == 0
    printed = capsys.readouterr()
    assert f"note: {folder} is read as market1501" in printed.err
    json.loads(printed.out)


EXAMPLES = Path(__file__).parents[2] / "examples" / "crops"


def test_figures_on_ones_own_pictures_come_with_what_to_know_of_them(
    own_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(own_file), "--data", str(EXAMPLES)]) == 0
    printed = capsys.readouterr().out
    assert "of 8 people were measured" in printed
    assert f"next: --camera-pairs shows which cameras do not go together; `resight calibrate {EXAMPLES}" in printed
    assert main([str(own_file), "--data", str(EXAMPLES), "--split", "all", "--json"]) == 0
    found = capsys.readouterr()
    figures = json.loads(found.out)
    assert (figures["split"], figures["queries"], figures["gallery"]) == ("all", 8, 16)
    assert "among 8 people" in found.err


def test_cameras_may_be_ignored(own_file: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(own_file), "--data", str(folder), "--ignore-cameras", "--json"]) == 0
    assert "cameras unknown" in json.loads(capsys.readouterr().out)["protocol"]
    assert "no camera is known" in failing([own_file, "--data", folder, "--ignore-cameras", "--camera-pairs"], capsys)


def test_some_cameras_alone_are_measured(own_file: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(own_file), "--data", str(folder), "--camera", "1", "--camera", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["data"].endswith(", only cameras 1, 2")
    assert "only in its own" in failing([own_file, "--data", folder, "--camera", "1"], capsys)
    assert "no picture is of a camera '9'" in failing([own_file, "--data", folder, "--camera", "9"], capsys)


def test_where_nothing_can_be_measured_nothing_is_embedded(
    own_file: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(OnnxModel, "embed")
    assert "only in its own" in failing([own_file, "--data", folder, "--camera", "1"], capsys)
    names = [f"{person}/{name}" for person in "abcdefgh" for name in ("door_1.jpg", "door_2.jpg", "lift_1.jpg")]
    write_pictures(tmp_path, names)
    lines = [f"{name},{name[0]},{name[2:6]}" for name in names]
    table = tmp_path / "own.csv"
    table.write_text("\n".join(["path,identity,camera", *lines]))
    told = failing([own_file, "--data", table, "--camera", "lift"], capsys)
    assert "error: none of these pictures is a query, so that nobody asks: take more cameras" in told


def test_ctrl_c_is_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("training.evaluate.measure", interrupted)
    assert main(["model.onnx", "--data", "somewhere"]) == 130
    assert capsys.readouterr().err == "stopped: nothing was measured\n"
