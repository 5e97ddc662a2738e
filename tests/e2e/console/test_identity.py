"""The identities' screen: the list, the time line, renaming, merging and erasing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.drawn_crops import crop, uploads
from tests.e2e.console.conftest import CROPS, Watched, enrol
from tests.serving import Served

IDENTITY = "/console/identity"
NAMES = sorted({path.name.split("_")[0] for path in CROPS})


def of(name: str) -> list[Path]:
    return [path for path in CROPS if path.name.startswith(f"{name}_")]


def identity(served: Served, name: str) -> dict[str, Any] | None:
    answer = served.client.get(f"/identities/{name}")
    return None if answer.status_code == 404 else answer.json()


def crops(served: Served, name: str, count: int, **labels: str) -> None:
    """Enrols drawn figures, each of its own minute where `labels` have no time."""
    for first in range(0, count, 64):
        numbers = range(first, min(first + 64, count))
        items = [{"captured_at": f"2026-05-01T{8 + n // 60:02d}:{n % 60:02d}:00Z", "identity": name} for n in numbers]
        form = {"items": json.dumps(items if "untimed" not in labels else [{"identity": name}] * len(items))}
        if "camera" in labels:
            form["camera"] = labels["camera"]
        files = uploads(*(crop(n % 64, n // 64) for n in numbers))
        served.client.post("/gallery", files=files, data=form).raise_for_status()


def test_all_identities(filled: Served, visit: Callable[..., Watched], shoot: Callable[..., Path]) -> None:
    watched = visit(filled, IDENTITY)
    page = watched.page
    page.wait_for_selector("#faces a")
    assert page.locator("#faces a").all_inner_texts() == NAMES
    assert watched.serious() == []
    shoot(watched, "identities")
    page.click(f"#faces a:has-text('{NAMES[1]}')")
    page.wait_for_selector("#line svg")
    assert page.inner_text("h1") == NAMES[1]
    page.fill("#open-name", "no such name")
    page.press("#open-name", "Enter")
    assert "letters, digits" in page.inner_text("#problem")


def test_the_list_goes_on(served: Served, visit: Callable[..., Watched]) -> None:
    items = [{"identity": f"p{number:02d}"} for number in range(64)]
    files = uploads(*(crop(number) for number in range(64)))
    served.client.post("/gallery", files=files, data={"items": json.dumps(items)}).raise_for_status()
    page = visit(served, IDENTITY).page
    page.click("#more")
    page.wait_for_selector("#more", state="hidden")
    assert page.locator("#faces a").count() == 64


def test_an_empty_gallery_and_an_unknown_name(served: Served, visit: Callable[..., Watched]) -> None:
    watched = visit(served, IDENTITY)
    watched.expected.add(404)
    page = watched.page
    page.wait_for_selector("text=Nobody has a name yet")
    assert watched.serious() == []
    page.fill("#open-name", "0042")
    page.press("#open-name", "Enter")
    page.wait_for_selector("text=No crop has the identity 0042")
    for name in (".", ".."):  # no browser can ask for these
        page.fill("#open-name", name)
        page.press("#open-name", "Enter")
        page.wait_for_selector("#problem:has-text('give it another name')")
        page.evaluate("location.hash = ''")
        page.wait_for_selector("text=Nobody has a name yet")


def test_the_list_is_shown_once_however_fast_one_goes_back(filled: Served, visit: Callable[..., Watched]) -> None:
    watched = visit(filled, None)
    page = watched.page
    held: list[Any] = []
    page.route("**/identities?*", lambda route: held.append(route))
    watched.open(IDENTITY)
    page.evaluate("location.hash = '0001'")
    page.wait_for_selector("#line svg")
    page.evaluate("location.hash = ''")
    while len(held) < 2:
        page.wait_for_timeout(20)
    for route in held:
        route.continue_()
    page.wait_for_selector("#faces a")
    page.wait_for_load_state("networkidle")
    assert page.locator("#faces a").all_inner_texts() == NAMES


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("wide", {}),
        ("phone", {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"}),
        ("wall", {"viewport": {"width": 3840, "height": 2160}}),
    ],
)
def test_a_time_line_by_camera(
    name: str, options: Any, filled: Served, visit: Callable[..., Watched], shoot: Callable[..., Path]
) -> None:
    filled.client.post("/gallery", files=uploads(crop(1), crop(2)), data={"identity": "0002"}).raise_for_status()
    watched = visit(filled, f"{IDENTITY}#0002", **options)
    page = watched.page
    page.wait_for_selector("#line svg")
    assert page.locator("#line .camera").all_text_contents() == ["c1", "c2", "c3", "no camera"]
    assert page.locator("#line [role=button]").count() >= 4
    assert "5 crops" in page.inner_text("#facts")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.locator("#line [role=button]").first.click()
    page.wait_for_selector("#chosen img")
    assert watched.serious() == []
    shoot(watched, f"identity-{name}")


def test_many_crops_share_places_and_can_be_pulled_apart(
    served: Served, visit: Callable[..., Watched], shoot: Callable[..., Path]
) -> None:
    crops(served, "busy", 180, camera="c1")
    watched = visit(served, f"{IDENTITY}#busy")
    page = watched.page
    page.wait_for_selector("#line svg")
    before = page.locator("#line [role=button]").count()
    assert before < 40
    page.locator("#line .several-text").first.click()
    page.click("text=Zoom into their time")
    assert 1 < page.locator("#line [role=button]").count() < before
    page.click("#whole")
    assert page.locator("#line [role=button]").count() == before
    shoot(watched, "identity-busy")


def test_crops_without_times(served: Served, visit: Callable[..., Watched]) -> None:
    crops(served, "quiet", 60, untimed="yes")
    page = visit(served, f"{IDENTITY}#quiet").page
    page.wait_for_selector("#line svg")
    page.locator("#line [role=button]").last.press("Enter")
    page.wait_for_selector("#chosen img")
    assert "no time" in page.inner_text("#chosen")


def test_rename(filled: Served, visit: Callable[..., Watched]) -> None:
    watched = visit(filled, f"{IDENTITY}#0003")
    watched.expected.add(404)  # of the question whether the new name is somebody's
    page = watched.page
    page.wait_for_selector("#line svg")
    for wrong, said in {"": "type it first", "a b": "letters, digits", "0003": "its name already"}.items():
        page.fill("#new-name", wrong)
        page.press("#new-name", "Enter")
        page.wait_for_selector(f"#rename-problem:has-text('{said}')")
        assert page.input_value("#new-name") == wrong
    page.fill("#new-name", "carol")
    page.press("#new-name", "Enter")
    page.wait_for_selector("h1:has-text('carol')")
    page.wait_for_selector("#line svg")
    assert identity(filled, "0003") is None
    assert (identity(filled, "carol") or {})["crops"] == len(of("0003"))


def test_merge_with_a_preview(filled: Served, visit: Callable[..., Watched], shoot: Callable[..., Path]) -> None:
    enrol(filled, of("0002")[:1], identity="0001")
    watched = visit(filled, f"{IDENTITY}#0001")
    page = watched.page
    page.wait_for_selector("#line svg")
    page.fill("#new-name", "0002")
    page.press("#new-name", "Enter")
    page.wait_for_selector("#merge[open]")
    assert "Merge 0001 into 0002?" in page.inner_text("#merge")
    assert "4 crops" in page.inner_text("#merge-sides")
    assert "Together 0002 will have 6 crops of 3 cameras" in page.inner_text("#merge-total")
    assert watched.serious() == []
    shoot(watched, "identity-merge", full_page=False)
    page.keyboard.press("Escape")
    assert (identity(filled, "0001") or {})["crops"] == 4
    page.click("#rename-button")
    page.click("#merge-yes")
    page.wait_for_selector("h1:has-text('0002')")
    page.wait_for_selector("text=Merged: 0001 is 0002 now, 4 crops moved")
    assert identity(filled, "0001") is None


def test_erase_with_the_typed_name_and_a_receipt(
    filled: Served, visit: Callable[..., Watched], shoot: Callable[..., Path]
) -> None:
    watched = visit(filled, f"{IDENTITY}#0004")
    page = watched.page
    page.wait_for_selector("#line svg")
    page.fill("#typed", "0005")
    page.press("#typed", "Enter")
    assert "Type 0004" in page.inner_text("#erase-problem")
    assert identity(filled, "0004") is not None
    page.fill("#typed", "0004")
    page.press("#typed", "Enter")
    page.wait_for_selector("#receipt:visible")
    assert "3 crops of 0004" in page.inner_text("#receipt")
    assert page.evaluate("document.activeElement.id") == "receipt-title"
    assert watched.serious() == []
    shoot(watched, "identity-receipt")
    with page.expect_download() as download:
        page.click("#download")
    receipt = json.loads(Path(download.value.path()).read_text())
    assert (receipt["asked"], receipt["crops"]) == ({"identity": "0004"}, 3)
    assert download.value.suggested_filename == f"erasure-{receipt['id']}.json"
    assert identity(filled, "0004") is None
    assert (identity(filled, "0005") or {})["crops"] == 3


def test_the_keyboard_alone(filled: Served, visit: Callable[..., Watched]) -> None:
    watched = visit(filled, f"{IDENTITY}#0001")
    page = watched.page
    page.wait_for_selector("#line svg")
    while page.evaluate("document.activeElement.getAttribute('role')") != "button":
        page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_selector("#line [aria-pressed=true] >> nth=0")
    assert page.locator("#line [role=button]").nth(1).get_attribute("aria-pressed") == "true"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "new-name"
    page.keyboard.type("0002")
    page.keyboard.press("Enter")
    page.wait_for_selector("#merge[open]")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('0002')")
