"""The screen Review: crops without an identity beside their best candidates; a person decides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.drawn_crops import crop, uploads
from tests.e2e.console.conftest import CROPS, Watched, enrol
from tests.serving import Served

REVIEW = "/console/review"
UNKNOWN = [path for path in CROPS if path.name.split("_")[0] in ("0001", "0002") and "_c1" in path.name]


@pytest.fixture
def waiting(served: Served) -> list[str]:
    """The ids of two crops without an identity, 0001 and 0002 as c1 saw them, in a gallery that knows both."""
    for path in CROPS:
        if path not in UNKNOWN:
            name, camera = path.name.split("_")[:2]
            enrol(served, [path], identity=name, camera=camera[:2])
    return enrol(served, UNKNOWN, camera="c1")


def now(served: Served, crop_id: str) -> dict[str, Any]:
    found: dict[str, Any] = served.client.get(f"/gallery/{crop_id}").json()
    return found


def begin(served: Served, visit: Callable[..., Watched], **options: Any) -> Watched:
    watched = visit(served, REVIEW, **options)
    at(watched.page, 1)
    return watched


def at(page: Any, number: int) -> None:
    page.wait_for_selector(f"#position:has-text('Crop {number} of')")


def choose(page: Any, name: str) -> None:
    page.click(f".candidate:has-text('. {name}')")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("wide", {}),
        ("phone", {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"}),
        ("wall", {"viewport": {"width": 3840, "height": 2160}}),
    ],
)
def test_a_crop_beside_its_candidates(
    name: str,
    options: Any,
    served: Served,
    waiting: list[str],
    visit: Callable[..., Watched],
    shoot: Callable[..., Path],
) -> None:
    watched = begin(served, visit, **options)
    page = watched.page
    assert page.locator(".candidate").count() == 5
    assert page.locator("#own img").get_attribute("src").endswith(f"{waiting[0]}/image")
    assert page.locator(f".candidate img[src*='{waiting[0]}']").count() == 0  # it is not its own candidate
    assert page.locator(".candidate svg.distance").count() == 5
    assert page.locator("#verdict strong").inner_text() in ("Match", "Ambiguous", "Unknown", "No verdict")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.wait_for_load_state("networkidle")
    assert watched.serious() == []
    shoot(watched, f"review-{name}")


def test_same_person(served: Served, waiting: list[str], visit: Callable[..., Watched]) -> None:
    page = begin(served, visit).page
    choose(page, "0001")
    page.click("#same")
    at(page, 2)
    assert now(served, waiting[0])["identity"] == "0001"
    page.click("#undo")
    at(page, 1)
    assert now(served, waiting[0])["identity"] is None
    assert "0 decided" in page.inner_text("#position")


def test_not_this_person_is_honoured_and_can_be_undone(
    served: Served, waiting: list[str], visit: Callable[..., Watched]
) -> None:
    served.client.patch(f"/gallery/{waiting[0]}", json={"not_identity": "0008"}).raise_for_status()
    page = begin(served, visit).page
    first = page.locator(".candidate strong").first.inner_text().removeprefix("1. ")
    page.click("#not")
    page.wait_for_selector("#own:has-text('not ')")
    page.wait_for_selector(f".candidate:has-text('. {first}')", state="detached")
    assert set(now(served, waiting[0])["not_identity"]) == {"0008", first}
    page.click("#undo")
    page.wait_for_selector(f".candidate:has-text('. {first}')")
    assert now(served, waiting[0])["not_identity"] == ["0008"]


def test_a_new_person(served: Served, waiting: list[str], visit: Callable[..., Watched]) -> None:
    watched = begin(served, visit)
    watched.expected.add(404)  # of the question whether the name is somebody's
    page = watched.page
    for wrong, said in {"": "type it first", "a b": "letters, digits", "0003": "0003 is somebody already"}.items():
        page.fill("#new-name", wrong)
        page.press("#new-name", "Enter")
        page.wait_for_selector(f"#decision-problem:has-text('{said}')")
        assert page.input_value("#new-name") == wrong
    page.fill("#new-name", "dora")
    page.click("#new")
    at(page, 2)
    assert now(served, waiting[0])["identity"] == "dora"


def test_keys_decide(served: Served, waiting: list[str], visit: Callable[..., Watched], shoot: Any) -> None:
    watched = begin(served, visit)
    watched.expected.add(404)
    page = watched.page
    ranked = [name.split(". ", 1)[1] for name in page.locator(".candidate strong").all_inner_texts()]
    place = next(place for place, name in enumerate(ranked) if place and name.isdecimal())  # the other crop has no name
    page.keyboard.press(str(place + 1))
    assert page.locator(".candidate input").nth(place).is_checked()
    assert ranked[place] in page.inner_text("#other")
    page.keyboard.press("Enter")
    at(page, 2)
    assert now(served, waiting[0])["identity"] == ranked[place]
    page.keyboard.press("u")
    at(page, 1)
    assert now(served, waiting[0])["identity"] is None
    page.keyboard.press("s")
    at(page, 2)
    page.keyboard.press("n")
    page.wait_for_selector("text=That was the last one")
    assert now(served, waiting[1])["identity"] == f"person-{waiting[1][:8]}"
    assert watched.serious() == []
    shoot(watched, "review-end")
    page.click("#again")
    at(page, 1)
    page.uncheck("#keys")
    page.keyboard.press("s")
    page.wait_for_timeout(100)
    assert "Crop 1 of 1" in page.inner_text("#position")


def test_a_name_is_typed_without_deciding(served: Served, waiting: list[str], visit: Callable[..., Watched]) -> None:
    page = begin(served, visit).page
    page.fill("#new-name", "")
    page.focus("#new-name")
    page.keyboard.type("nxsu1")
    assert page.input_value("#new-name") == "nxsu1"
    assert "0 decided, 0 skipped" in page.inner_text("#position")
    assert now(served, waiting[0])["identity"] is None


def test_what_somebody_else_decided_stands(served: Served, waiting: list[str], visit: Callable[..., Watched]) -> None:
    page = begin(served, visit).page
    served.client.patch(f"/gallery/{waiting[0]}", json={"identity": "0006"}).raise_for_status()
    page.click("#same")
    page.wait_for_selector("#said:has-text('Somebody has named this crop 0006 meanwhile')")
    at(page, 2)
    assert now(served, waiting[0])["identity"] == "0006"


def test_a_crop_that_was_deleted_is_left_out(served: Served, waiting: list[str], visit: Callable[..., Watched]) -> None:
    watched = begin(served, visit)
    watched.expected.add(404)
    served.client.delete(f"/gallery/{waiting[1]}").raise_for_status()
    watched.page.keyboard.press("s")
    watched.page.wait_for_selector("text=That was the last one")


def test_a_crop_stays_until_it_is_decided_where_its_candidate_was_deleted(
    served: Served, visit: Callable[..., Watched]
) -> None:
    ids = enrol(served, CROPS[:3])
    watched = begin(served, visit)
    watched.expected.add(404)
    page = watched.page
    page.locator(".candidate").nth(1).wait_for()
    shown = page.get_attribute("#own img", "src")
    candidate = page.get_attribute("#other img", "src")
    [deleted] = [crop_id for crop_id in ids if crop_id in candidate]
    served.client.delete(f"/gallery/{deleted}").raise_for_status()
    page.click("#same")
    page.wait_for_selector(f"#said:has-text('no crop {deleted}')")
    at(page, 1)
    assert page.get_attribute("#own img", "src") == shown
    page.click("#same")
    page.wait_for_selector("text=That was the last one")


def test_two_of_nobody_become_one_person(served: Served, visit: Callable[..., Watched]) -> None:
    ids = [
        result["crop_id"]
        for result in served.client.post("/gallery", files=uploads(crop(1), crop(1, 1))).json()["results"]
    ]
    watched = begin(served, visit)
    watched.expected.add(404)
    page = watched.page
    page.click("#not")
    page.wait_for_selector("#decision-problem:has-text('no name that could be ruled out')")
    page.fill("#new-name", "twin")
    page.click("#same")
    page.wait_for_selector("text=That was the last one")
    assert {now(served, crop_id)["identity"] for crop_id in ids} == {"twin"}
    page.click("#undo-end")
    at(page, 1)
    assert {now(served, crop_id)["identity"] for crop_id in ids} == {None}


def test_nobody_to_compare_with(served: Served, visit: Callable[..., Watched]) -> None:
    enrol(served, CROPS[:1])
    page = begin(served, visit).page
    assert "Nobody is left to compare with" in page.inner_text("#verdict-place")
    assert page.is_disabled("#same")
    page.keyboard.press("Enter")
    page.wait_for_selector("#decision-problem:has-text('give a new person a name')")


def test_an_empty_gallery(served: Served, visit: Callable[..., Watched], shoot: Callable[..., Path]) -> None:
    watched = visit(served, REVIEW)
    watched.page.wait_for_selector("text=Nothing to review")
    assert watched.serious() == []
    shoot(watched, "review-empty")


def test_a_service_that_does_not_answer(served: Served, waiting: list[str], visit: Callable[..., Watched]) -> None:
    watched = begin(served, visit)
    page = watched.page
    page.route("**/query", lambda route: route.abort())
    page.click("#skip")
    page.wait_for_selector("#problem:has-text('does not answer')")
    page.keyboard.press("Enter")
    page.unroute("**/query")
    watched.complaints.clear()  # of the connection that the test cut
    page.click("#retry")
    at(page, 2)
    assert [now(served, crop_id)["identity"] for crop_id in waiting] == [None, None]


def test_queries_store_nothing(served: Served, waiting: list[str], visit: Callable[..., Watched]) -> None:
    watched = begin(served, visit)
    posts: list[str] = []
    watched.page.on("request", lambda asked: posts.append(asked.url) if asked.method == "POST" else None)
    watched.page.keyboard.press("s")
    at(watched.page, 2)
    assert {url.rsplit("/", 1)[1] for url in posts} == {"query"}
    assert served.client.get("/readyz").json()["crops"] == len(CROPS)
