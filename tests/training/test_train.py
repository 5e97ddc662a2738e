"""The command: what it refuses, what it tells, where a run goes. The runs themselves: tests/training/loop."""

from __future__ import annotations

import errno
import json
import logging
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.training.data.drawing import write_pictures
from tests.training.loop.tiny import TINY, log_of
from training import export, train
from training.config import build_config
from training.data import market1501, synthetic
from training.data.dataset import UNKNOWN_CAMERA, Dataset, short_name
from training.loop import checkpoint
from training.loop.distributed import Processes
from training.loop.files import NotWritten, locked
from training.loop.memory import OutOfMemory
from training.loop.trainer import Trainer
from training.modelfile import parity
from training.network.stored import Checkpoint
from training.retrieval.protocol import evaluate
from training.retrieval.torch_model import TorchModel
from training.train import RUNS, draw_data, find_data, main, parse


class Killed(Exception):
    pass


def smoke_command(drawn: Path, run: Path, *more: str) -> list[str]:
    settings = [word for setting in [*TINY, "epochs=1"] for word in ("--set", setting)]
    return ["--preset", "smoke", "--data", str(drawn), "--run", str(run), "--device", "cpu", *settings, *more]


def test_the_drawn_data_is_complete_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(folder: Path) -> None:
        (folder / "query").mkdir(parents=True)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(synthetic, "draw_market1501", dies)
        with pytest.raises(Killed):
            draw_data(tmp_path / "drawn")
    assert not (tmp_path / "drawn").exists()
    assert len(market1501.read(draw_data(tmp_path / "drawn")).train) == 216
    assert {path.name for path in tmp_path.iterdir()} == {"drawn", "lock"}


def test_one_command_at_a_time_draws_the_data(tmp_path: Path) -> None:
    """Two would take each other's pictures away."""
    with locked(tmp_path), pytest.raises(ValueError, match="another command is training in"):
        draw_data(tmp_path / "drawn")
    assert len(market1501.read(draw_data(tmp_path / "drawn")).train) == 216
    with locked(tmp_path):
        draw_data(tmp_path / "drawn")  # what is there needs no drawing


def test_a_full_disk_while_the_data_are_drawn_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(folder: Path) -> None:
        (folder / "query").mkdir(parents=True)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(synthetic, "draw_market1501", full)
    run = tmp_path / "run"
    assert main(["--preset", "smoke", "--run", str(run)]) == 1
    assert (
        f"stopped: {run / 'drawn'} could not be drawn ([Errno 28] No space left on device)" in capsys.readouterr().err
    )
    assert not run.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "smoke", "--device", "abacus"], "abacus is unknown"),
        (["--preset", "smoke", "--device", "cuda:99"], "--device cuda:99: this machine has"),
        (["--preset", "strong"], "--data is needed"),
        (["--preset", "smoke", "--data", "nowhere"], "nowhere does not exist"),
        (["--preset", "smoke", "--layout", "cuhk03-labeled"], "no picture named like 0001_c1_1.png"),
        (["--preset", "smoke", "--set", "epoch=3"], "epoch is one of"),
        (["--preset", "smoke", "--weights", "absent.pt"], "absent.pt does not exist"),
        (["--preset", "smoke", "--set", "distillation=1"], "--teacher FILE and"),
        (["--preset", "smoke", "--config", "absent.toml"], "absent.toml"),
        (
            ["--preset", "smoke", "--set", "identities=99"],
            "identities is 99, the people of a batch, and there are 8 to learn: add --set identities=8",
        ),
        (["--preset", "smoke", "--set", "precision=fp16", "--device", "cpu"], "fp16 needs a CUDA device"),
        (["--preset", "smoke", "--set", "calibration_identities=7"], "calibration_identities is 7, and"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str], message: str, drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if "smoke" in arguments and "--data" not in arguments:
        arguments = [*arguments, "--data", str(drawn)]
    assert main([*arguments, "--run", str(tmp_path / "run")]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert message.lower() in line.lower()


def test_a_few_people_of_ones_own_get_through_with_one_paste(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """12 people, 80 pictures, the default preset: what is told first is all that there is to tell."""
    crops = tmp_path / "crops"
    write_pictures(crops, [f"{n % 12:02d}/{n}.jpg" for n in range(80)])
    small = ["layers=[1, 1, 1, 1]", "base_width=8", "height=32", "width=32", "precision=fp32", "epochs=2"]
    settings = [word for setting in small for word in ("--set", setting)]
    command = ["--preset", "strong", "--data", str(crops), "--run", str(tmp_path / "run"), "--device", "cpu", *settings]
    assert main([*command, "--no-export"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    for named in ("warmup_epochs is 5.0", "calibration_identities is 50", "identities is 16"):
        assert named in line
    paste = line.partition(": add ")[2].split()
    assert main([*command, "--no-export", *paste]) == 0
    assert len(log_of(tmp_path / "run")) == 2


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (
            NotWritten("checkpoint.pt could not be written (disk full)"),
            1,
            "stopped: checkpoint.pt could not be written",
        ),
        (KeyboardInterrupt("a.pt holds the 2 complete epochs"), 130, "stopped: a.pt holds the 2 complete epochs"),
        (KeyboardInterrupt(), 130, "stopped\n"),
        (OutOfMemory("the memory of this machine does not suffice"), 1, "stopped: the memory of this machine"),
    ],
)
def test_a_run_that_stops_says_why(
    error: BaseException,
    code: int,
    told: str,
    drawn: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stops(*_arguments: object) -> Path:
        raise error

    monkeypatch.setattr(Trainer, "train", stops)
    assert main(smoke_command(drawn, tmp_path, "--no-export")) == code
    assert told in capsys.readouterr().err


def test_a_run_is_trained_exported_and_measured(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """All but the writing of the model files, which takes long and is tested elsewhere."""
    written: list[Path] = []

    def exports(found: Checkpoint, data: Dataset, output: Path, precision: str, **_options: object) -> export.Exported:
        written.append(output)
        output.write_bytes(precision.encode())
        return export.Exported(output, evaluate(TorchModel(found), data), "no curve", ("few people",))

    monkeypatch.setattr(export, "export", exports)
    assert main(smoke_command(drawn, tmp_path, "--set", "eval_every=1", "--layout", "market1501")) == 0
    assert written == [tmp_path / f"model-{precision}.onnx" for precision in export.DEFAULT_PRECISIONS]
    (line,) = log_of(tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    assert [result["precision"] for result in results] == list(export.DEFAULT_PRECISIONS)
    assert results[0]["mAP_official"] == pytest.approx(line["mAP_official"])
    assert results[0]["rank1"] == pytest.approx(line["rank1"])
    assert "warning: few people" in caplog.messages


def test_an_excluded_camera_is_not_learnt_from(drawn: Path, tmp_path: Path) -> None:
    assert main(smoke_command(drawn, tmp_path, "--no-export", "--exclude-camera", "2")) == 0
    parts = json.loads((tmp_path / "run.json").read_text())["data"]
    assert (parts["train"]["cameras"], parts["gallery"]["cameras"]) == (1, 2)
    assert main(smoke_command(drawn, tmp_path, "--no-export")) == 2  # other data do not continue it


def test_a_refused_export_is_told(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_arguments: object, **_options: object) -> None:
        raise parity.ExportError("the fp32 file's embedding is another: nothing was written")

    monkeypatch.setattr(export, "export", refuses)
    assert main(smoke_command(drawn, tmp_path)) == 1
    told = capsys.readouterr().err
    assert "stopped: the fp32 file's embedding is another" in told
    assert f"the checkpoint is {tmp_path / checkpoint.LATEST}" in told


def test_a_missing_exporter_is_told_before_training(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "training.export", None)
    assert main(smoke_command(drawn, tmp_path / "run")) == 2
    assert "to export, a package is not installed (" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main(smoke_command(drawn, tmp_path / "run", "--no-export")) == 0


def test_what_the_data_has_to_say_is_logged(
    data: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = replace(data, left_out=3, notes=("query 7 has no match",))
    monkeypatch.setattr(train, "read", lambda _path, _layout, **_: told)
    monkeypatch.setattr(Trainer, "train", lambda *_arguments: tmp_path)
    with caplog.at_level(logging.INFO, "training"):
        assert main(smoke_command(tmp_path, tmp_path, "--no-export")) == 0
    messages = [record.getMessage() for record in caplog.records]
    assert messages[0] == "query 7 has no match"
    assert messages[1].startswith("3 junk and distractor pictures")


def test_the_default_folder_names_preset_data_and_settings(drawn: Path) -> None:
    config = build_config("smoke")
    arguments = parse(["--preset", "smoke", "--data", str(drawn)])
    data, run = find_data(arguments, config, Processes())
    assert run.parent == RUNS
    assert run.name == f"smoke-{short_name(data.name)}-{config.sha256()[:8]}"
    assert short_name("Market-1501") == "market1501"


def test_cameras_of_the_drawn_data_may_be_ignored_too(drawn: Path, tmp_path: Path) -> None:
    (tmp_path / "drawn").symlink_to(drawn)
    arguments = parse(["--preset", "smoke", "--run", str(tmp_path), "--ignore-cameras"])
    data, _ = find_data(arguments, build_config("smoke"), Processes())
    assert {sample.camera for sample in (*data.train, *data.query, *data.gallery)} == {UNKNOWN_CAMERA}


def test_only_the_first_process_draws_and_speaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Path] = []
    monkeypatch.setattr(train, "draw_data", drawn.append)
    monkeypatch.setattr(train, "read", lambda path, _layout, **_: path)
    monkeypatch.setattr(Processes, "wait", lambda _self: None)
    arguments: Any = parse(["--preset", "smoke", "--run", str(tmp_path)])
    for rank in range(2):
        find_data(arguments, build_config("smoke"), Processes(rank, 2))
        assert drawn == [tmp_path / "drawn"]


def test_a_full_disk_or_sigterm_at_the_export_is_told(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def terminated(*_arguments: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    command = smoke_command(drawn, tmp_path / "run")
    earlier = signal.getsignal(signal.SIGTERM)
    try:
        for fault, code in ((full, 1), (terminated, 130)):
            monkeypatch.setattr(export, "export_graph", fault)
            assert main(command) == code
            assert not list((tmp_path / "run").glob(".export-*"))
    finally:
        signal.signal(signal.SIGTERM, earlier)
    path = tmp_path / "run" / "model-fp32.onnx"
    assert f"stopped: {path} could not be written ([Errno 28] No space left on device)\n" in capsys.readouterr().err


def test_a_finished_run_is_not_exported_again(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    exported: list[Path] = []

    def export_all(trained: Path, _data: Dataset, run: Path, _console: object) -> None:
        exported.append(trained)
        for name in ("model-fp32.onnx", "model-int8.onnx", "results.json"):
            (run / name).write_text("{}")

    monkeypatch.setattr(train, "load_exporter", lambda: export_all)
    for _ in range(2):
        assert main(smoke_command(drawn, tmp_path)) == 0
    assert exported == [tmp_path / "checkpoint.pt"]
    assert "is complete" in caplog.text
    (tmp_path / "results.json").unlink()
    assert main(smoke_command(drawn, tmp_path)) == 0
    assert len(exported) == 2


def test_a_refused_run_leaves_nothing(drawn: Path, tmp_path: Path) -> None:
    assert main(smoke_command(drawn, tmp_path / "run", "--weights", "absent.pt")) == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("option", ["--data", "--run", "--config"])
def test_an_empty_path_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([option, ""])
    assert f"argument {option}: an empty path" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["query", "bounding_box_test"])
def test_a_damaged_test_picture_is_named_before_training(
    part: str, drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = shutil.copytree(drawn, tmp_path / "data")
    victim = min((data / part).iterdir())
    victim.write_bytes(victim.read_bytes()[:100])
    run = tmp_path / "run"
    assert main(["--preset", "smoke", "--data", str(data), "--run", str(run), "--no-export"]) == 2
    assert f"error: {victim.name}: not a readable picture" in capsys.readouterr().err
    assert not run.exists()
