"""The benchmarks of ranking and re-ranking run, and their contenders measure the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from benchmarks import contest, ranking, reranking
from benchmarks.contest import (
    Aims,
    Contender,
    Disagreement,
    Figures,
    Problem,
    Result,
    Size,
    compete,
    draw_problem,
    table,
)
from training.data import synthetic
from training.data.reading import read
from training.retrieval.embedded import Embedded
from training.retrieval.ranking import ranking_of


@pytest.mark.parametrize("contenders", [ranking.CONTENDERS, reranking.CONTENDERS], ids=["ranking", "reranking"])
@pytest.mark.parametrize("size", [Size(20, 120, 16), Size(30, 150, 64)], ids=str)
def test_contenders_agree(contenders: Mapping[str, Contender], size: Size) -> None:
    problem = draw_problem(size)
    expected, *others = (contender(problem) for contender in contenders.values())
    assert all(0 < figure < 1 for figure in expected)
    assert others
    for found in others:
        assert found == pytest.approx(expected, abs=1e-6)


def test_a_command_prints_its_contenders(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in contest.THREADS:
        monkeypatch.setenv(variable, "1")  # put back afterwards
    monkeypatch.setenv("COLUMNS", "200")
    arguments = ["--queries", "20", "--gallery", "90", "--dim", "16", "--repeats", "1", "--threads", "1"]
    assert contest.main("re-ranking", reranking.CONTENDERS, reranking.AIMS, "", arguments) == 0
    printed = capsys.readouterr().out
    for words in ("re-ranking: 20 x 90 x 16, 1 threads", "sparse (ours)", "dense", "peak MB"):
        assert words in printed


def test_embeddings_of_a_data_set_are_ranked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in contest.THREADS:
        monkeypatch.setenv(variable, "1")
    monkeypatch.setenv("COLUMNS", "300")
    drawn = tmp_path / "drawn"
    synthetic.draw_market1501(drawn, train_identities=8, test_identities=4, cameras=2, shots=2)
    ranking_ = ranking_of(read(drawn), "test")
    drawn_rows = draw_problem(Size(len(ranking_.query), len(ranking_.gallery), 16))
    Embedded(drawn_rows.query, drawn_rows.gallery).save(tmp_path / "rows")
    arguments = ["--embeddings", str(tmp_path / "rows"), "--data", str(drawn), "--repeats", "1", "--threads", "1"]
    assert contest.main("re-ranking", reranking.CONTENDERS, Aims(), "", arguments) == 0
    assert "rows of drawn" in " ".join(capsys.readouterr().out.split())
    (tmp_path / "rows" / "query.npy").unlink()
    assert contest.main("re-ranking", reranking.CONTENDERS, Aims(), "", arguments) == 2
    assert "query.npy" in capsys.readouterr().err


def right(problem: Problem) -> Figures:
    return 0.5, 0.25


def wrong(problem: Problem) -> Figures:
    return 0.5, 0.25001


def test_a_contender_that_measures_something_else_is_told() -> None:
    with pytest.raises(Disagreement, match=r"wrong measured \(0.5, 0.25001\)"):
        compete({"right": right, "wrong": wrong}, Size(2, 9, 4), repeats=1, agreement=1e-6)


def test_medians_and_ratios() -> None:
    ours = [Result(seconds, 10_000_000, (0.5, 0.25)) for seconds in (1.0, 9.0, 2.0)]
    shown = table("title", {"ours": ours, "theirs": [Result(5.0, 1, (0.5, 0.25))]})
    cells = [list(column.cells) for column in shown.columns]
    assert cells[1] == ["2.000", "5.000"]
    assert cells[2] == ["1.0", "2.5"]
    assert cells[3] == ["10", "0"]


def fixed(seconds: float, megabytes: float) -> list[Result]:
    return [Result(seconds, int(1e6 * megabytes), (0.5, 0.25))]


@pytest.mark.parametrize(
    ("ours", "missed"),
    [
        (fixed(1, 100), []),
        (fixed(2.5, 10), ["2.50 s, the aim is 2 s", "1.20 times as fast as theirs, the aim is 1.5 times"]),
        (fixed(1, 101), ["101 MB, the aim is 100 MB"]),
    ],
)
def test_missed_aims_are_told_and_fail_the_command_at_full_size(
    ours: list[Result], missed: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in contest.THREADS:
        monkeypatch.setenv(variable, "1")
    aims = Aims(seconds=2, megabytes=100, faster={"theirs": 1.5, "absent": 9})
    results = {"ours": ours, "theirs": fixed(3, 1)}
    assert aims.missed(results) == missed
    monkeypatch.setattr(contest, "compete", lambda *_: results)
    contenders = {"ours": right, "theirs": right}
    assert contest.main("title", contenders, aims, "", []) == int(bool(missed))
    assert capsys.readouterr().err == "".join(f"missed: {sentence}\n" for sentence in missed)
    assert contest.main("title", contenders, aims, "", ["--queries", "9"]) == 0


def test_ours_always_runs_and_a_disagreement_is_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in contest.THREADS:
        monkeypatch.setenv(variable, "1")
    contenders = {"ours": right, "left out": right, "wrong": wrong}
    arguments = ["--only", "wrong", "--queries", "2", "--gallery", "9", "--dim", "4", "--repeats", "1"]
    assert contest.main("title", contenders, Aims(), "", arguments) == 1
    assert capsys.readouterr().err == "failed: wrong measured (0.5, 0.25001), ours (0.5, 0.25)\n"


def test_no_pictures_are_refused_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        contest.main("title", {"ours": right, "left out": right}, Aims(), "", ["--gallery", "0"])
    assert ended.value.code == 2
    assert "argument --gallery: must be at least 1" in capsys.readouterr().err
