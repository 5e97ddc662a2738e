"""What all screens have in common."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.console.conftest import Watched
from tests.serving import Served

SCREENS = {"search": "/", "gallery": "/console/gallery", "review": "/console/review", "status": "/console/status"}


@pytest.mark.parametrize("name", SCREENS)
def test_a_screen_of_an_empty_gallery(name: str, served: Served, visit: Callable[..., Watched]) -> None:
    watched = visit(served, SCREENS[name])
    watched.page.wait_for_load_state("networkidle")
    assert watched.page.locator("nav [aria-current=page]").count() == 1
    assert watched.serious() == []
