from __future__ import annotations

import json
from pathlib import Path

import pytest

from service.client import Resight
from tests.drawn_crops import crop
from tests.service.cli.running import resight
from tests.serving import Served


@pytest.fixture
def url(service: Served, market: Path) -> str:
    """A service with the people 0001, 0002 and 0003 under two cameras each."""
    assert resight("enrol", market, "--url", service.url).exit_code == 0
    return service.url


def names(url: str) -> dict[str, int]:
    with Resight(url) as client:
        return {one.identity: one.crops for one in client.identities()}


def test_list_and_show(url: str) -> None:
    listed = resight("identities", "list", "--url", url)
    lines = [line.split() for line in listed.stdout.splitlines()]
    assert lines[0] == ["identity", "crops", "cameras", "first", "seen", "last", "seen"]
    assert [line[:2] for line in lines[1:]] == [["0001", "2"], ["0002", "2"], ["0003", "2"]]
    records = [json.loads(line) for line in resight("identities", "list", "--url", url, "--json").stdout.splitlines()]
    assert next((one["identity"], one["cameras"]) for one in records) == ("0001", ["c1", "c2"])

    shown = resight("identities", "show", "0002", "--url", url)
    assert "0002_c1s1_000000_00.jpg" in shown.stdout
    answer = json.loads(resight("identities", "show", "0002", "--url", url, "--json").stdout)
    assert {crop["camera"] for crop in answer["crops"]} == {"c1", "c2"}


def test_an_empty_gallery_says_how_people_get_into_it(service: Served) -> None:
    assert "resight enrol" in resight("identities", "list", "--url", service.url).stdout


def test_rename_never_merges(url: str) -> None:
    done = resight("identities", "rename", "0001", "anna", "--url", url)
    assert done.stdout == "0001 is anna now, with 2 crops\n"
    refused = resight("identities", "rename", "anna", "0002", "--url", url)
    assert refused.exit_code == 2
    assert "resight identities merge anna 0002" in refused.stderr
    assert names(url) == {"anna": 2, "0002": 2, "0003": 2}


def test_merge_asks_first(url: str) -> None:
    unasked = resight("identities", "merge", "0001", "0002", "0003", "--url", url)
    assert unasked.exit_code == 2
    assert "say --yes" in unasked.stderr
    assert len(names(url)) == 3
    done = resight("identities", "merge", "0001", "0002", "0003", "--yes", "--url", url, "--json")
    assert json.loads(done.stdout) == {"identity": "0003", "merged": ["0001", "0002"], "moved": 4}
    assert done.stderr == "0001 is 0003 now: 2 crops moved\n0002 is 0003 now: 2 crops moved\n"
    assert names(url) == {"0003": 6}


def test_a_merge_is_said_once(url: str, tmp_path: Path) -> None:
    (tmp_path / "0004_c1s1_000001_00.png").write_bytes(crop(50))
    assert resight("enrol", tmp_path / "0004_c1s1_000001_00.png", "--url", url).stdout.startswith("1 crop in ")
    assert "Erase 0004 for good, with 1 crop?" in resight("identities", "erase", "0004", "--url", url).stderr
    assert "Merge 0004 (1 crop) into 0001?" in resight("identities", "merge", "0004", "0001", "--url", url).stderr
    done = resight("identities", "merge", "0004", "0001", "--yes", "--url", url)
    assert (done.stdout, done.stderr) == ("0004 is 0001 now: 1 crop moved\n", "")


@pytest.mark.parametrize("wrong", [["0001"], ["0001", "0001"], ["0001", "0001", "0002"]])
def test_merge_wants_different_people(wrong: list[str]) -> None:
    result = resight("identities", "merge", *wrong, "--yes")
    assert (result.exit_code, "two or more different" in result.stderr) == (2, True)


def test_erase_gives_a_receipt(url: str) -> None:
    assert "say --yes" in resight("identities", "erase", "0001", "--url", url).stderr
    assert "0001" in names(url)
    done = resight("identities", "erase", "0001", "--yes", "--url", url)
    assert done.stdout.startswith("2 crops of 0001 erased: receipt ")
    receipt = json.loads(resight("identities", "erase", "0002", "--yes", "--url", url, "--json").stdout)
    assert (receipt["crops"], receipt["asked"]) == (2, {"identity": "0002"})
    assert names(url) == {"0003": 2}


@pytest.mark.parametrize(
    "command", [["show", "nobody"], ["rename", "nobody", "x"], ["erase", "nobody"], ["merge", "nobody", "0001"]]
)
def test_nobody_is_told(url: str, command: list[str]) -> None:
    result = resight("identities", *command, "--url", url)
    assert result.exit_code == 1
    assert result.stderr == "There is no identity 'nobody'; `resight identities list` shows all of them.\n"
    assert len(names(url)) == 3


def test_the_address_may_be_in_the_environment(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESIGHT_URL", url)
    assert "0003" in resight("identities", "list").stdout
    assert resight("identities", "list", "--url", "http://127.0.0.1:1").exit_code == 2
