"""What all screens have in common."""

from __future__ import annotations

from collections.abc import Callable

import pytest

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
