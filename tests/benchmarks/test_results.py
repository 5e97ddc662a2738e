"""Results keep what was measured, say it briefly, and are not measured twice."""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import (
    BenchmarkError,
    engine,
    enrolment,
    growth,
    results,
    search,
    service,
    slow_clients,
    soak,
    start,
)
from benchmarks.options import as_counts
from benchmarks.results import Figure, Pivot, Results, arguments, command, digits, peers_option, python_of


def some() -> Results:
    found = Results("question", {"seconds": "1"}, {"processor": "p", "cores": "2", "memory": "1 GiB"}, "abc")
    found.add("ours", "one", "ms", 3.0)
    found.add("ours", "one", "ms", 1.0, 2.0)
    found.add("theirs", "one", "ms", 1234.5)
    found.add("ours", "two", "images/s", 0.01234)
    found.not_run["absent"] = "not here"
    return found


def test_repeats_are_gathered_and_survive_the_file(tmp_path: Path) -> None:
    found = some()
    figure = found.find("ours", "one", "ms")
    assert figure is not None
    assert figure.values == (3.0, 1.0, 2.0)
    assert figure.median == 2.0
    assert str(figure) == "2.00 (1.00–3.00)"
    assert found.find("ours", "three", "ms") is None
    found.write(tmp_path / "new" / "found.json")
    assert Results.read(tmp_path / "new" / "found.json") == found


@pytest.mark.parametrize(
    ("value", "said"), [(0, "0"), (1234.5, "1,234"), (99.96, "100.0"), (0.01234, "0.0123"), (float("inf"), "inf")]
)
def test_three_digits(value: float, said: str) -> None:
    assert digits(value) == said


def test_what_is_more_goes_down() -> None:
    by_unit = {pivot.unit: pivot for pivot in Pivot.all(some())}
    assert by_unit["ms"] == Pivot("ms", ("one",), (("ours", ("2.00 (1.00–3.00)",)), ("theirs", ("1,234",))))
    wide = some()
    for case in ("three", "four"):
        wide.add("ours", case, "ms", 1.0)
    (pivot, _) = Pivot.all(wide)
    assert pivot.across == ("ours", "theirs")
    assert pivot.rows[1] == ("three", ("1.00", "–"))


@pytest.mark.parametrize("text", ["", "{}", '{"figures": [{"subject": 1}]}', "[]"])
def test_a_file_of_something_else_is_said(text: str, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(BenchmarkError, match=r"other.json holds no results"):
        Results.read(tmp_path / "other.json")


def test_a_command_measures_once_where_it_resumes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "code_version", lambda: "abc")
    runs = []

    def measure(options: argparse.Namespace, found: Results, console: Console) -> None:
        runs.append(options.repeats)
        found.add("ours", "one", "ms", 1.0)

    def run(*more: str) -> int:
        return command("question", arguments("words"), measure, ["--json", str(tmp_path / "found.json"), *more])

    assert run() == run("--resume") == 0
    assert runs == [3]
    assert "has it for this host" in " ".join(capsys.readouterr().out.split())
    assert run("--resume", "--repeats", "5") == 0  # other settings
    monkeypatch.setattr(results, "code_version", lambda: "abd")
    assert run("--resume", "--repeats", "5") == 0  # other code
    assert runs == [3, 5, 5]


def test_what_cannot_be_measured_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    def measure(*_: object) -> None:
        raise BenchmarkError("no such thing")

    assert command("question", arguments("words"), measure, []) == 2
    assert capsys.readouterr().err == "error: no such thing\n"


def test_where_nothing_can_be_written_nothing_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def measure(*_: object) -> None:
        raise AssertionError

    (tmp_path / "file").touch()
    (tmp_path / "folder.json").mkdir()
    for name, why in (
        ("folder.json", "is no file that figures can be written to"),
        ("file/found.json", "cannot be written"),
        (f"{250 * 'n'}.json", "cannot be written: File name too long"),
    ):
        assert command("question", arguments("words"), measure, ["--json", str(tmp_path / name)]) == 2
        (said,) = capsys.readouterr().err.splitlines()
        assert said.startswith(f"error: {tmp_path / name} {why}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.json"]


def test_a_disk_that_is_full_in_the_end_is_one_sentence_below_the_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(options: argparse.Namespace, found: Results, console: Console) -> None:
        found.add("ours", "one", "ms", 1.0)

    def full(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_text", full)
    assert command("question", arguments("words"), measure, ["--json", str(tmp_path / "found.json")]) == 2
    printed = capsys.readouterr()
    assert "ours" in printed.out
    assert printed.err.startswith(f"error: {tmp_path / 'found.json'} cannot be written: No space left on device")
    assert not list(tmp_path.iterdir())


def test_nothing_is_resumed_without_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command("question", arguments("words"), lambda *_: None, ["--resume"])
    assert capsys.readouterr().err.endswith("error: --resume needs --json FILE, which it looks into\n")


def test_options_of_peers(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    parser = peers_option(arguments("words"), ["a", "b"])
    options = parser.parse_args([])
    assert options.only == ["a", "b"]
    assert python_of(options, peer=False) == sys.executable
    with pytest.raises(BenchmarkError, match=r"the peers' environment, \.venv-peers, is not there; `make peers`"):
        python_of(options, peer=True)
    assert python_of(parser.parse_args(["--peers", sys.executable]), peer=True) == sys.executable
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(["--peers", "nowhere"])
    assert "argument --peers: nowhere is no program" in capsys.readouterr().err


def test_search_says_how_its_repeats_are_spread(capsys: pytest.CaptureFixture[str]) -> None:
    for main, turns in ((search.main, "of each index, one after the other"), (growth.main, "by turns")):
        with pytest.raises(SystemExit, match="0"):
            main(["--help"])
        assert f"{turns} (default 3)" in " ".join(capsys.readouterr().out.split())


def test_several_numbers() -> None:
    assert as_counts("1,8,32") == [1, 8, 32]


@pytest.mark.parametrize(
    ("main", "option", "value", "said"),
    [
        (search.main, "--crops", "0", "must be at least 1"),
        (search.main, "--dim", "-3", "must be at least 1"),
        (search.main, "--batches", "x", "'x' is no whole number"),
        (search.main, "--repeats", "0", "must be at least 1"),
        (search.main, "--seconds", "0", "must be above 0"),
        (search.main, "--seconds", "nan", "must be above 0"),
        (search.main, "--seconds", "long", "'long' is no number"),
        (engine.main, "--batches", "1,,8", "'' is no whole number"),
        (enrolment.main, "--crops", "0", "must be at least 1"),
        (growth.main, "--sizes", "10,0", "must be at least 1"),
        (start.main, "--sizes", "0", "must be at least 1"),
        (service.main, "--clients", "0", "must be at least 1"),
        (service.main, "--crops", "1.5", "'1.5' is no whole number"),
        (service.main, "--gallery", "0", "must be at least 1"),
        (slow_clients.main, "--seconds", "-1", "must be above 0"),
        (soak.main, "--seconds", "0", "must be above 0"),
    ],
)
def test_numbers_that_nothing_can_be_measured_with_are_refused_at_once(
    main: Callable[[Sequence[str]], int], option: str, value: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([option, value])
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"error: argument {option}: {said}")


def test_code_has_a_version() -> None:
    assert results.code_version()
    assert Figure("ours", "one", "ms", (1.0,)).median == 1
