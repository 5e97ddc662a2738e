"""`resight optimize`: what it prints, and its exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.inference.model import read_model
from service.jobs import optimize as job
from tests.service.cli.running import resight
from tests.tiny_model import in_ort_format, write_tiny_model

CROPS = Path(__file__).parents[3] / "examples" / "crops"


def test_it_makes_a_file_and_says_how_near_it_is(model_path: Path, tmp_path: Path) -> None:
    target = tmp_path / "half.onnx"
    done = resight("optimize", model_path, "--output", target, "--crops", CROPS)
    assert done.exit_code == 0, done.output
    assert "24 crops: cosine " in done.stdout
    assert f"passed: {target} is tiny-colours" in done.stdout
    assert read_model(target).info.precision == "fp16"


def test_a_file_that_embeds_otherwise_is_not_made(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "derive", lambda _: read_model(write_tiny_model(tmp_path / "o.onnx", colours=(1, 9, 1))))
    done = resight("optimize", model_path, "--output", tmp_path / "half.onnx", "--crops", CROPS)
    assert done.exit_code == 1
    assert "failed: " in done.stderr
    assert not (tmp_path / "half.onnx").exists()


def test_what_cannot_be_done_is_one_line(model_path: Path, tmp_path: Path) -> None:
    done = resight("optimize", tmp_path / "none.onnx", "--output", tmp_path / "half.onnx", "--crops", CROPS)
    assert done.exit_code == 2
    assert done.stderr == f"There is no model file at {tmp_path / 'none.onnx'}.\n"


@pytest.mark.parametrize("threads", ["-1", "0", "1025", "999999"])
def test_threads_are_those_of_the_service(threads: str, model_path: Path, tmp_path: Path) -> None:
    output = tmp_path / "half.onnx"
    done = resight("optimize", model_path, "--output", output, "--crops", CROPS, "--threads", threads)
    assert done.exit_code == 2
    assert done.stderr == f"--threads must be 1 to 1024, not {threads}.\n"


def test_no_traceback_ends_as_if_it_embedded_otherwise(model_path: Path, tmp_path: Path) -> None:
    done = resight("optimize", model_path, "--output", tmp_path / ("x" * 300), "--crops", CROPS)
    assert done.exit_code == 2
    assert done.stderr.endswith("cannot be written: File name too long.\n")
    ort = in_ort_format(model_path, tmp_path / "tiny.ort")
    done = resight("optimize", ort, "--output", tmp_path / "half.onnx", "--crops", CROPS)
    assert done.exit_code == 2
    assert f"{ort} cannot be made fp16 for a GPU: it is in ORT format" in done.stderr


def test_ctrl_c_writes_nothing(model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "derive", interrupted)
    done = resight("optimize", model_path, "--output", tmp_path / "half.onnx", "--crops", CROPS)
    assert done.exit_code == 130
    assert "Stopped: nothing was written." in done.stderr
