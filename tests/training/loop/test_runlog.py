from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.training.loop.tiny import steps_of
from training.data.dataset import UNKNOWN_CAMERA, Dataset
from training.loop import runlog


def test_what_is_trained_again_is_dropped(tmp_path: Path) -> None:
    for epoch in (1, 2, 3):
        runlog.append_steps(tmp_path, epoch, 2 * epoch - 1, [{"triplet": 0.5}, {"triplet": 0.25}])
        runlog.append(tmp_path, {"epoch": epoch, "batches": 2})
    for name in (runlog.LOG, runlog.STEPS):
        with (tmp_path / name).open("a") as file:
            file.write('{"epoch": 4, "cross_entr')
    assert runlog.truncate(tmp_path, 2) == 4
    lines = (tmp_path / runlog.LOG).read_text()
    assert lines == '{"epoch": 1, "batches": 2}\n{"epoch": 2, "batches": 2}\n'
    assert [(line["epoch"], line["step"]) for line in steps_of(tmp_path)] == [(1, 1), (1, 2), (2, 3), (2, 4)]
    assert sorted(path.name for path in tmp_path.iterdir()) == [runlog.LOG, runlog.STEPS]


@pytest.mark.parametrize(
    "damaged", ['{"epoch": 1e999}', "[" * 100_000, '{"epoch": 2, "batches": "x"}', "[2]", '{"epoch": "2"}', "\0", "{}"]
)
def test_a_damaged_line_ends_what_is_kept(damaged: str, tmp_path: Path) -> None:
    (tmp_path / runlog.LOG).write_text(f'{{"epoch": 1, "batches": 2}}\n{damaged}\n{{"epoch": 2, "batches": 2}}\n')
    assert runlog.truncate(tmp_path, 2) == 2
    assert (tmp_path / runlog.LOG).read_text() == '{"epoch": 1, "batches": 2}\n'


def test_nothing_to_drop(tmp_path: Path) -> None:
    assert runlog.truncate(tmp_path, 2) == 0
    assert list(tmp_path.iterdir()) == []


def test_json_is_written_whole(tmp_path: Path) -> None:
    runlog.write_json(tmp_path / "a.json", {"a": [1, 2]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [1, 2]}
    assert len(list(tmp_path.iterdir())) == 1


def test_the_environment_is_told() -> None:
    start = runlog.environment(torch.device("cpu"), processes=2)
    assert set(start) == {
        "revision", "python", "torch", "numpy", "kornia", "device", "processes", "threads", "started"
    }  # fmt: skip
    assert start["torch"] == str(torch.__version__)
    assert start["processes"] == 2
    assert start["device"].startswith("cpu")


def test_an_unknown_camera_is_none(data: Dataset) -> None:
    assert runlog.data_fingerprint(data)["train"] == {"identities": 8, "images": 32, "cameras": 2}
    blind = tuple(replace(sample, camera=UNKNOWN_CAMERA) for sample in data.train)
    assert runlog.data_fingerprint(replace(data, train=blind))["train"]["cameras"] == 0
