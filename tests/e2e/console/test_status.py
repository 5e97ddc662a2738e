"""The screen Status: the model with its licence notice, how busy the service is, and what /readyz says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from service.keys import KeyScope, create_key
from tests.e2e.console.conftest import CROPS, Watched
from tests.serving import Served


def test_the_model_its_notice_and_how_busy_it_is(
    filled: Served, visit: Callable[..., Watched], shoot: Callable[..., Path]
) -> None:
    watched = visit(filled, "/console/status")
    page = watched.page
    page.wait_for_selector("#ready.good")
    for _ in range(3):
        filled.client.post("/query", files={"images": CROPS[0].read_bytes()}).raise_for_status()
    page.wait_for_selector(".sparkline .value")
    model = filled.client.get("/model").json()
    shown = page.inner_text("#model")
    assert model["licence_notice"] in shown
    assert model["sha256"] in shown
    assert f"rank-1 {100 * model['metrics']['rank1']:.1f}" in shown
    tiles = page.inner_text("#tiles")
    assert "24" in tiles
    assert "8 identities" in tiles
    assert "ms now" in page.inner_text("#latency-now")
    shoot(watched, "status")
    assert watched.serious() == []


def test_in_the_dark_on_a_phone(filled: Served, visit: Callable[..., Watched], shoot: Callable[..., Path]) -> None:
    watched = visit(filled, "/console/status", viewport={"width": 390, "height": 844}, color_scheme="dark")
    watched.page.wait_for_selector(".facts-list")
    watched.page.wait_for_selector(".sparkline")
    assert watched.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    shoot(watched, "status-phone-dark")
    assert watched.serious() == []


def test_says_why_it_is_not_ready_and_that_a_key_may_be_too_small(
    start: Callable[..., Served], visit: Callable[..., Watched], shoot: Callable[..., Path], tmp_path: Path
) -> None:
    keys = tmp_path / "keys.json"
    key = create_key(keys, "desk", KeyScope.QUERY)
    served = start(keys_file=keys)
    watched = visit(served, "/console/status")
    watched.expected = {403, 503}
    page = watched.page
    page.fill("#key", key)
    page.press("#key", "Enter")
    page.wait_for_selector("text=needs a key of scope admin")
    assert page.is_visible("#ready.good")
    shoot(watched, "status-query-key")
    page.context.clear_cookies()  # the session ends
    page.wait_for_selector("#sign-in[open]")
    page.click("#sign-in-cancel")
    page.wait_for_selector("#problem:has-text('Sign in with an API key')")
    assert not page.is_visible("#sign-in")
    page.reload()
    page.fill("#key", key)
    page.press("#key", "Enter")
    page.wait_for_selector("#ready.good")
    served.runtime.worker.stop()
    page.wait_for_selector("#ready.bad", timeout=15_000)
    assert "Not ready" in page.inner_text("#ready")
    shoot(watched, "status-not-ready")
