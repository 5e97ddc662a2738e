"""What to know of figures on one's own pictures, and what to do next: a sentence each."""

from __future__ import annotations

import shlex
from pathlib import Path

from training.data.dataset import Dataset, people
from training.retrieval.protocol import Evaluation

MARKET_PEOPLE = 750  # in the test part of Market-1501, which published figures are of


def advice(evaluation: Evaluation, data: Dataset, path: Path) -> list[str]:
    """Nothing for a benchmark.

    Args:
        path: where `data` was read.
    """
    if not data.is_own:
        return []
    return [*_measured(evaluation, data), _next(evaluation, data, path)]


def _measured(evaluation: Evaluation, data: Dataset) -> list[str]:
    test, everybody = people(data.query, data.gallery), people(data.train, data.query, data.gallery)
    measured = {"test": test, "train": everybody - test, "all": everybody}[evaluation.split]
    said = []
    if evaluation.split == "test":
        why = "by their names about half are kept for training" if data.divided else "the others are there to be learnt"
        said.append(
            f"{test} of {everybody} people were measured: {why}. A model that learnt from none of them can be measured "
            "on all: --split all"
        )
    if measured < MARKET_PEOPLE:
        said.append(
            f"among {measured} people there are few to be taken for another: figures on more people are lower, and "
            f"those of Market-1501 ({MARKET_PEOPLE} people) are not to be compared with these"
        )
    return said


def _next(evaluation: Evaluation, data: Dataset, path: Path) -> str:
    steps = []
    if evaluation.cameras and not evaluation.camera_pairs:
        steps.append("--camera-pairs shows which cameras do not go together")
    file = shlex.quote(evaluation.model) if evaluation.model.endswith(".onnx") else "EXPORTED.onnx"
    calibrate = f"`resight calibrate {shlex.quote(str(path))} --model {file}` measures the distance of a match"
    if data.divided and evaluation.split != "all":
        calibrate += " (of a model that learnt from these people: on the file of `python -m training.data --list`)"
    steps.append(calibrate)
    steps.append("docs/training.md tells how to train on pictures like these")
    return f"next: {'; '.join(steps)}"
