"""The page is made of results: every aim is a row, and what stands between the markers is written anew."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import enrolment, growth, report, search, service, start
from benchmarks.aims import AIMS
from benchmarks.results import MODIFIED, Results

PAGE = Path("docs/performance.md")
ONE, BULK, FILTERED = service.Case(1, 32), service.Case(32, 8), service.Case(1, 32, without_camera=True)


def results(question: str, **settings: str) -> Results:
    return Results(question, settings, {"processor": "p", "cores": "2", "memory": "1 GiB"}, "abc", complete=True)


def found() -> dict[str, Results]:
    behind = results("service")
    for case, ours, theirs in ((BULK, 95.0, 90.0), (ONE, 88.0, 75.0)):
        behind.add(service.OURS, str(case), service.RATE, ours - 1, ours, ours + 9)
        behind.add("LitServe", str(case), service.RATE, theirs)
        behind.add("Ray Serve", str(case), service.RATE, theirs / 2)
    behind.add(service.OURS, str(FILTERED), service.RATE, 70.0, 70.0, 70.0)
    behind.add(service.RAW, "best batch", service.RATE, 99.0, 100.0, 110.0)
    behind.add(service.OURS, service.ONE, service.MEDIAN, 14.0)
    behind.add(service.RAW, service.ONE, service.MEDIAN, 9.0)
    behind.add(service.OURS, "all its processes", service.MEMORY, 601.0)
    rows = results("enrolment")
    rows.add(service.OURS, enrolment.FORMS, enrolment.SHARE, 0.95)
    rows.add(service.OURS, enrolment.ARCHIVE, enrolment.SHARE, 0.89)
    rows.add(service.OURS, enrolment.FORMS, enrolment.DURABLE, 100.0)
    begun = results("start")
    begun.add(start.subject(100_000, 2048), start.WITH, start.READY, 2.5)
    grown = results("growth")
    for size in (10_000, 100_000):
        grown.add(growth.SUBJECT, f"{size:,} crops", growth.TIME, size**0.5)
    grown.add(growth.SUBJECT, growth.span([10_000, 100_000]), growth.EXPONENT, 0.5)
    looked = results("search", crops="300000", dim="2048")
    looked.code += MODIFIED
    looked.add(search.OURS, search.ONE, search.TIME, 4.0)
    looked.add(search.OURS, "32 queries", search.RECALL, 0.985)
    looked.not_run["Milvus"] = "benchmarks.searchers milvus: NotImplementedError: a server of its own"
    million = results("search", crops="1000000", dim="2048")
    million.add(search.OURS, "all crops", search.MEMORY, 4_800.0)
    million.add(search.OURS_COMPRESSED, "all crops", search.MEMORY, 900.0)
    million.add(search.OURS_COMPRESSED, search.ONE, search.TIME, 30.0)
    searched = {"search-300000": looked, "search-1000000": million}
    return {"service": behind, "enrolment": rows, "start": begun, "growth": grown, **searched}


def rows(all_found: dict[str, Results]) -> dict[str, tuple[str, str]]:
    return {text: (figure, verdict) for text, figure, _, verdict in (aim.row(all_found) for aim in AIMS)}


def test_every_aim_is_a_row_with_its_verdict() -> None:
    said = rows(found())
    assert len(said) == len(AIMS) == 20
    expected = {
        "Bulk embedding": ("0.949", "reached"),
        "One crop a query": ("0.880", "reached"),
        "The same with one camera": ("0.700", "short"),
        "One client, one crop, exact": ("5.00 ms", "reached"),
        "Search of 300,000": ("4.00 ms", "reached"),
        "Rate over the best peer's": ("1.06", "reached"),
        "The same for one crop and 32 clients": ("1.17", "reached"),
        "Enrolment": ("0.890", "short"),
        "Rows of it": ("100 %", "reached"),
        "Start with a snapshot of 100,000": ("2.50 s", "reached"),
        "Memory of the service": ("601 MB", "short"),
        "Memory of the index": ("900 MB", "reached"),
        "Exponent": ("0.500", "reached"),
    }
    for start_, (figure, verdict) in expected.items():
        (text,) = [text for text in said if text.startswith(start_)]
        assert ("of 2,048 values" in text) == (start_ == "Start with a snapshot of 100,000")
        assert said[text][1] == verdict
        assert said[text][0].replace("100.0", "100") == figure
    assert said["GPU: engine in fp16"] == ("–", "not yet run")


def test_a_search_that_does_not_find_is_short() -> None:
    changed = found()
    changed["search-300000"].figures[-1] = (
        changed["search-300000"].figures[-1].__class__(search.OURS, "32 queries", search.RECALL, (0.97,))
    )
    text = next(text for text in rows(changed) if text.startswith("Search of"))
    assert rows(changed)[text] == ("inf ms", "short")


def test_nothing_measured_is_said_in_every_row() -> None:
    assert {verdict for _, verdict in rows({}).values()} == {"not yet run"}


def test_the_page_is_written_anew_between_its_markers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, one in found().items():
        one.write(tmp_path / "results" / f"{name}.json")
    page = tmp_path / "performance.md"
    page.write_text(PAGE.read_text())
    arguments = ["--results", str(tmp_path / "results"), "--page", str(page)]
    assert report.main(arguments) == 0
    written = page.read_text()
    assert "| LitServe |" in re.sub(r"[^|]*\|", "|", "") + written
    assert "- Not run: Milvus: a server of its own" in written
    assert written.count("Made by uncommitted code") == 1
    assert "code abc-modified; crops 300000, dim 2048. Made by uncommitted code" in written
    assert "![service](performance/service.svg)" in written
    assert sorted(path.name for path in (tmp_path / "performance").iterdir()) == [
        "growth.svg",
        "search-1000000.svg",
        "search-300000.svg",
        "service.svg",
    ]
    assert report.main(arguments) == 0
    assert page.read_text() == written
    page.write_text("no markers")
    assert report.main(arguments) == 2
    assert "the page has no <!-- aims -->" in capsys.readouterr().err


def test_the_committed_page_is_what_the_report_makes_of_the_committed_results(tmp_path: Path) -> None:
    page = tmp_path / PAGE.name
    page.write_text(PAGE.read_text())
    assert report.main(["--page", str(page)]) == 0
    assert page.read_text() == PAGE.read_text(), "make report"


def test_the_page_has_every_block() -> None:
    blocks = [report.ADDED, "hosts", *report.SECTIONS]
    assert report.replaced(PAGE.read_text(), dict.fromkeys(blocks, "words")).count("words") == len(blocks)
