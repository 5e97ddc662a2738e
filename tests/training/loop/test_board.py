from __future__ import annotations

import errno
from importlib import util
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from training.loop import board as module
from training.loop.board import FOLDER, board
from training.loop.files import NotWritten


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(run / FOLDER))
    events.Reload()
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_the_log_is_shown_and_a_resumed_run_replaces_what_it_trains_again(tmp_path: Path) -> None:
    with board(tmp_path, 0) as show:
        for epoch in (1, 2, 3):
            show({"epoch": epoch, "triplet": 1.0, "learning_rate": 0.5, "seconds": 9.0, "batches": 3})
    with board(tmp_path, 1) as show:
        show({"epoch": 2, "triplet": 0.25, "mAP": 0.5})
    found = scalars(tmp_path)
    assert set(found) == {"triplet", "learning_rate", "mAP"}
    assert found["triplet"] == [(1, 1.0), (2, 0.25)]
    assert found["learning_rate"] == [(1, 0.5)]


def test_without_tensorboard_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "tensorboard" else util.find_spec(name))
    with board(tmp_path, 0) as show:
        show({"epoch": 1, "triplet": 1.0})
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_with_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with board(tmp_path, 0) as show:
        monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.add_scalar", full)
        with pytest.raises(NotWritten, match=r"tensorboard could not be written .*No space left"):
            show({"epoch": 1, "triplet": 1.0})
