from __future__ import annotations

import pytest

from training.figures.tables import Ended, Spread, markdown, record, runs_markdown
from training.figures.variants import MARKET, MEASURES, TABLES

ATTENTION, SCORES, _ = TABLES


def run(rank1: float) -> dict[str, float]:
    return dict.fromkeys(MEASURES, 0.95) | {"rank1": rank1}


def cells(text: str, title: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {title} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_mean_and_deviation_are_over_the_seeds() -> None:
    spread = Spread.of([0.80, 0.82, 0.90])
    assert spread.mean == pytest.approx(84.0)
    assert spread.deviation == pytest.approx(((16 + 4 + 36) / 2) ** 0.5)
    assert str(spread) == "84.0 ± 5.3"


def test_one_seed_has_no_deviation() -> None:
    assert str(Spread.of([0.8])) == "80.0"
    with pytest.raises(ValueError, match="needs a finished run"):
        Spread.of([])


def test_a_row_has_ours_beside_the_papers() -> None:
    text = markdown(ATTENTION, {"self-attention": [run(0.91), run(0.93)], "resnet-50": [run(0.8)]}, MARKET)
    ours = cells(text, "self-attention")
    assert ours[:3] == ["self-attention", "92.0 ± 1.4", "90.2"]
    assert ours[-2:] == ["95.0 ± 0.0", "82.7"]
    assert cells(text, "ResNet-50")[1:3] == ["80.0", "86.8"]
    assert cells(text, "spatial attention")[1:3] == ["–", "88.6"]
    assert "runs a row: from 0 to 2" in text
    assert "do not compare" not in text


def test_every_line_has_as_many_cells_as_the_heading() -> None:
    lines = [line for line in markdown(SCORES, {}, MARKET).splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {12}
    assert len(lines) == 4


def test_figures_of_other_data_are_called_so() -> None:
    text = markdown(ATTENTION, {"self-attention": [run(0.5)]}, "drawn")
    assert "The paper's on Market-1501, since it has none on drawn: do not compare them." in text
    assert record(ATTENTION, {}, "drawn")["paper_data"] == MARKET


def test_cuhk03_is_told_about_its_map() -> None:
    text = markdown(ATTENTION, {"self-attention": [run(0.6)]}, "CUHK03 (detected)")
    assert cells(text, "self-attention")[1:3] == ["60.0", "60.5"]
    assert "single-gallery-shot" in text


def test_an_alpha_that_came_to_little_is_not_nothing() -> None:
    ended = {"cross_entropy": 1.2804, "alpha": -0.00042, "attention_ratio": 0.00005, "attention_entropy": 3.3912}
    text = runs_markdown([Ended("self-attention, seed 0", run(0.5), [ended])])
    assert cells(text, "self-attention, seed 0")[3:9] == ["1.28", "–", "–", "-0.00042", "5e-05", "3.39"]
    assert "| alpha | ‖y − x‖ / ‖x‖ |" in text  # which spatial attention has too


def test_the_record_keeps_every_seed() -> None:
    found = record(SCORES, {"sigmoid": [run(0.5), run(0.75)]}, MARKET)
    softmax, sigmoid = found["rows"]
    assert (found["table"], found["data"]) == (6, MARKET)
    assert softmax["ours"] is None
    assert sigmoid["settings"]["attention_scores"] == "sigmoid"
    assert sigmoid["ours"]["rank1"]["values"] == (50.0, 75.0)
    assert sigmoid["paper"]["mAP"] == 81.5
