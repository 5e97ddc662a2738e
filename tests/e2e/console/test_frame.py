"""What all screens have in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from service.keys import KeyScope, create_key
from tests.e2e.console.conftest import CROPS, Watched, enrol
from tests.serving import Served

SCREENS = {"search": "/", "gallery": "/console/gallery", "review": "/console/review", "status": "/console/status"}


@pytest.mark.parametrize("name", SCREENS)
def test_a_screen_of_an_empty_gallery(name: str, served: Served, visit: Callable[..., Watched]) -> None:
    watched = visit(served, SCREENS[name])
    watched.page.wait_for_load_state("networkidle")
    assert watched.page.locator("nav [aria-current=page]").count() == 1
    assert watched.serious() == []


@pytest.mark.parametrize("path", ["/console/identity", f"/console/identity#{'x' * 128}", SCREENS["review"]])
def test_the_longest_names_fit_the_narrowest_phone(path: str, served: Served, visit: Callable[..., Watched]) -> None:
    enrol(served, CROPS[:1], identity="x" * 128, camera="y" * 128)
    enrol(served, CROPS[1:2])
    page = visit(served, path, viewport={"width": 320, "height": 640}).page
    page.wait_for_selector("main img:visible, main image:visible")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("document.querySelector('nav').scrollWidth <= innerWidth")  # no screen is out of sight
    assert page.evaluate("[...document.querySelectorAll('main img')].every((image) => image.width >= 32)")


ACTS = {
    "/console/identity#anna": {"#rename-button": "admin", "#new-name": "admin", "#erase-button": "admin"},
    "/console/gallery": {"#send": "enrol", "#set-identity": "enrol", "#set-camera": "enrol", "#delete": "admin"},
    "/console/review": {"#same": "enrol", "#new": "enrol", "#skip": "query"},
}
READY = {"identity#anna": "#one", "gallery": "#grid img", "review": "#desk"}


def test_what_a_key_may_not_do_is_disabled_and_says_what_it_needs(
    start: Callable[..., Served], visit: Callable[..., Watched], shoot: Callable[..., Path], tmp_path: Path
) -> None:
    made = {scope: create_key(tmp_path / "keys.json", scope, scope) for scope in KeyScope}
    served = start(keys_file=tmp_path / "keys.json")
    for scope in KeyScope:
        watched = visit(served)
        page = watched.page
        page.fill("#key", made[scope])
        page.press("#key", "Enter")
        page.wait_for_selector("#account-name")
        if scope is KeyScope.QUERY:
            page.wait_for_selector("text=This needs a key of scope enrol")
            assert page.is_disabled("text=Enrol the drawn people")
            served.client.headers["Authorization"] = f"Bearer {made[KeyScope.ADMIN]}"
            enrol(served, CROPS[:3], identity="anna")
            enrol(served, CROPS[3:5])
        for path, acts in ACTS.items():
            screen = path.removeprefix("/console/")
            watched.open(path)
            page.wait_for_selector(READY[screen])
            for act, needed in acts.items():
                assert page.is_disabled(act) == (not scope.covers(KeyScope(needed))), (scope, act)
                for said in page.locator(f"fieldset:disabled:has({act}) > .needs").all_text_contents():
                    assert f"needs a key of scope {needed}" in said
            assert watched.serious() == []
            shoot(watched, f"{screen[:8]}-{scope}-key")
