"""The benchmark of the input pipeline runs, and says what it measured."""

from __future__ import annotations

import pytest
import torch

from benchmarks import input_pipeline
from benchmarks.input_pipeline import Times, endless, main, random_feed, table
from training.config import build_config

SMALL = ("height=32", "width=32", "base_width=8", "identities=2", "shots=2")


def test_medians_and_ratio() -> None:
    times = Times([0.03, 0.9, 0.01], [0.02, 0.02, 0.5])
    assert times.ratio == pytest.approx(1.5)
    cells = [list(column.cells) for column in table(times, "title").columns]
    assert cells[1] == ["30.00", "20.00"]
    assert cells[4] == ["1.500", "1.000"]


def test_batches_are_augmented_and_never_end() -> None:
    feed = random_feed(build_config("smoke", overrides=[*SMALL, "epoch=identities"]), torch.device("cpu"))
    batches = endless(feed)
    drawn = [next(batches) for _ in range(len(feed.draw(0)) + 1)]
    assert all(batch.pictures.shape == (4, 3, 32, 32) for batch in drawn)
    assert not torch.equal(drawn[0].pictures, drawn[-1].pictures)


def test_the_command_runs_on_a_cpu(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "150")
    settings = [word for setting in SMALL for word in ("--set", setting)]
    assert main(["--device", "cpu", "--preset", "smoke", *settings, "--steps", "3", "--warm-up", "1"]) == 0
    printed = capsys.readouterr().out
    for words in ("4 x 32 x 32, fp32", "augmented batches", "a constant batch", f"the aim is {input_pipeline.AIM}"):
        assert words in printed


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_without_a_card_it_says_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "error: --device cuda: this machine has no CUDA device" in capsys.readouterr().err
