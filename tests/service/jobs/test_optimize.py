"""A derived file is written when it embeds crops as its source does, and only then."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from numpy.typing import NDArray

from service.inference.model import read_model
from service.jobs import optimize as job
from service.jobs.job import JobError
from service.jobs.optimize import agreement, optimize
from tests.drawn_crops import crop
from tests.tiny_model import write_tiny_model


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    """Nine people in a folder within the folder, and two files that are no pictures."""
    folder = tmp_path / "crops"
    (folder / "c1").mkdir(parents=True)
    for number in range(9):
        (folder / "c1" / f"{number}.png").write_bytes(crop(5 * number + 1))
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("x")
    return folder


def test_what_is_written_is_the_same_model(model_path: Path, crops: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    derived, found = optimize(model_path, tmp_path / "half.onnx", crops, 1, lambda *done: told.append(done))
    assert found.passed
    assert found.crops == 9
    assert found.cosine_least > 0.999
    assert found.nearest == 1
    assert told[-1] == (2, 2)
    written, source = read_model(tmp_path / "half.onnx"), read_model(model_path)
    assert written.content == derived.content
    assert (written.info.sha256, written.info.name) == (source.info.sha256, source.info.name)
    assert written.info.precision == "fp16"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["crops", "half.onnx"]


def test_one_that_embeds_otherwise_is_not_written(
    model_path: Path, crops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "derive", lambda _: read_model(write_tiny_model(tmp_path / "o.onnx", colours=(1, 9, 1))))
    _, found = optimize(model_path, tmp_path / "half.onnx", crops, 1)
    assert not found.passed
    assert not (tmp_path / "half.onnx").exists()


def rows(*vectors: tuple[float, float]) -> NDArray[np.float32]:
    found = np.array(vectors, np.float32)
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))


def test_agreement_is_of_directions_and_of_neighbours() -> None:
    source = rows((1, 0), (1, 0.1), (0, 1), (0.1, 1))
    assert agreement(source, source, "fp32").passed
    swapped = agreement(source, source[[2, 1, 0, 3]], "fp32")
    assert swapped.nearest == 0
    assert swapped.cosine_least == pytest.approx(0)
    assert not swapped.passed


def test_not_a_number_is_no_agreement() -> None:
    source = rows((1, 0), (0, 1))
    assert not agreement(source, np.full((2, 2), np.nan, np.float32), "int8").passed


def test_large_folders_are_sampled_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "MOST_CROPS", 4)
    for number in range(10):
        (tmp_path / f"{number}.jpg").touch()
    assert [path.stem for path in job._chosen(tmp_path)] == ["0", "3", "6", "9"]


def test_what_cannot_be_done_is_said(model_path: Path, crops: Path, tmp_path: Path) -> None:
    target = tmp_path / "half.onnx"
    (tmp_path / "empty").mkdir()
    with pytest.raises(JobError, match=r"There are no pictures in .* --crops FOLDER"):
        optimize(model_path, target, tmp_path / "empty", 1)
    (tmp_path / "empty" / "a.jpg").write_bytes(b"x")
    with pytest.raises(JobError, match="Fewer than two pictures"):
        optimize(model_path, target, tmp_path / "empty", 1)
    with pytest.raises(JobError, match="is there already"):
        optimize(model_path, model_path, crops, 1)
    with pytest.raises(JobError, match="no model file"):
        optimize(tmp_path / "none.onnx", target, crops, 1)
    half = write_tiny_model(tmp_path / "h.onnx", {"precision": "fp16"})
    with pytest.raises(JobError, match="is fp16 already"):
        optimize(half, target, crops, 1)
    with pytest.raises(JobError, match=f"{'x' * 300} cannot be read: File name too long"):
        optimize(model_path, target, tmp_path / ("x" * 300), 1)
    with pytest.raises(JobError, match="There is no model file at"):
        optimize(tmp_path / ("x" * 300), target, crops, 1)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("nowhere/half.onnx", "No such file or directory"), ("x" * 300, "File name too long")],
)
def test_a_place_that_cannot_be_written_is_said_before_the_work(
    name: str, reason: str, model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(_: Path) -> NoReturn:
        raise AssertionError

    monkeypatch.setattr(job, "read_model", work)
    with pytest.raises(JobError, match=f"{name} cannot be written: {reason}"):
        optimize(model_path, tmp_path / name, tmp_path, 1)


def test_a_name_may_be_as_long_as_the_file_system_takes(model_path: Path, crops: Path, tmp_path: Path) -> None:
    optimize(model_path, tmp_path / ("x" * 250), crops, 1)
    assert (tmp_path / ("x" * 250)).exists()
