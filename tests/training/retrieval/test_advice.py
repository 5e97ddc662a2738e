"""What is said of figures on one's own pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.training.data.drawing import samples, sound
from tests.training.retrieval.test_report import evaluation
from training.retrieval.advice import advice

FOLDER = Path("my crops")
OWN = replace(sound(), identities={1: "ann", 2: "bob", 3: "cyd", 4: "dan"}, divided=True)


def test_of_a_benchmark_nothing_is_said() -> None:
    assert advice(evaluation(), sound(), FOLDER) == []


def test_how_many_were_measured_and_what_to_do_next() -> None:
    measured, few, further = advice(evaluation(), OWN, FOLDER)
    assert measured == (
        "2 of 4 people were measured: by their names about half are kept for training. A model that learnt from none "
        "of them can be measured on all: --split all"
    )
    assert few.startswith("among 2 people there are few to be taken for another")
    assert further == (
        "next: --camera-pairs shows which cameras do not go together; `resight calibrate 'my crops' --model own.onnx` "
        "measures the distance of a match (of a model that learnt from these people: on the file of `python -m "
        "training.data --list`); docs/training.md tells how to train on pictures like these"
    )


def test_a_division_that_was_told_is_no_half() -> None:
    measured, _, further = advice(evaluation(), replace(OWN, divided=False), FOLDER)
    assert "measured: the others are there to be learnt" in measured
    assert "--list" not in further


def test_what_was_done_is_not_proposed() -> None:
    few, further = advice(evaluation(split="all", model="run", cameras=False), OWN, FOLDER)
    assert few.startswith("among 4 people")
    assert further.startswith("next: `resight calibrate 'my crops' --model EXPORTED.onnx` measures")


def test_many_people_are_not_few() -> None:
    many = replace(OWN, gallery=samples(*((identity, 1) for identity in range(3, 760))))
    assert not any(sentence.startswith("among") for sentence in advice(evaluation(), many, FOLDER))
    assert any(sentence.startswith("among 2 people") for sentence in advice(evaluation(split="train"), many, FOLDER))
