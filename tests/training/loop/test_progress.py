from __future__ import annotations

import io

import pytest
from rich.console import Console

from training.loop import progress
from training.loop.engine import Step
from training.loop.progress import epoch_progress


def test_rate_time_left_and_losses_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 2.0, 4.0])  # two seconds a step
    monkeypatch.setattr(progress, "monotonic", lambda: next(clock))
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=160, color_system=None)
    with epoch_progress(console, 2, 5, 4, 10) as show:
        show(Step({"cross_entropy": 4.5, "triplet": 1.25}, 0.5))
        show(Step({"cross_entropy": 3.5, "triplet": 0.75}, 0.5))
    shown = written.getvalue()
    for word in ("epoch 3/5", "2/4", "5.0 img/s", "run 0:00:20", "cross_entropy 3.500  triplet 0.750"):
        assert word in shown, word


def test_without_a_console_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with epoch_progress(None, 0, 1, 1, 8) as show:
        show(Step({"triplet": 1.0}, 0.0))
    assert capsys.readouterr() == ("", "")
