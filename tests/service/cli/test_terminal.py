from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from service.cli.terminal import duration, progress


def test_a_long_run_without_a_terminal_tells_how_far_it_is() -> None:
    written = io.StringIO()
    with progress(Console(file=written, width=100), 1000) as advance:
        for _ in range(10):
            advance(100)
    lines = written.getvalue().splitlines()
    assert len(lines) == 9
    assert re.fullmatch(r"100 of 1,000 crops \(10 %\), [\d,.]+/s, .+ left", lines[0])


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (9.9, "9.9 s"), (9.96, "10 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (3720, "1 h 02 min")],
)
def test_durations_are_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words
