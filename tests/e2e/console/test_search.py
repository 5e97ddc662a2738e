"""The screen Search: from an empty gallery to an answer, by drop, by keyboard and by crops of the gallery."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.keys import KeyScope, create_key
from tests.e2e.console.conftest import CROPS, ROOT, Watched
from tests.serving import Served

PROBE = ROOT / "examples" / "crops" / "0004_c3s1_000004_01.jpg"
OTHER = ROOT / "examples" / "crops" / "0004_c2s1_000004_01.jpg"
PHONE = {"width": 390, "height": 844}
MATCHES = "#matches > li"

DROP = """([name, files]) => {
  const data = new DataTransfer();
  for (const [file, type, base64] of files) {
    const bytes = Uint8Array.from(atob(base64), (one) => one.charCodeAt(0));
    data.items.add(new File([bytes], file, { type }));
  }
  const event = name === "paste" ? new ClipboardEvent(name, { clipboardData: data, bubbles: true })
    : new DragEvent(name, { dataTransfer: data, bubbles: true, cancelable: true });
  document.querySelector("#drop").dispatchEvent(event);
}"""


def hand(page: Any, event: str, *paths: Path) -> None:
    """Drops or pastes pictures."""
    files = [[path.name, "image/jpeg", base64.b64encode(path.read_bytes()).decode()] for path in paths]
    page.evaluate(DROP, [event, files])


def choose(page: Any, *paths: Path) -> None:
    page.set_input_files("#files", list(paths))
    page.wait_for_selector(MATCHES)


def names(page: Any) -> list[str]:
    return [text.strip() for text in page.locator(f"{MATCHES} h2 .identity").all_inner_texts()]


def problem(page: Any) -> str:
    page.wait_for_selector("#problem:not([hidden])")
    text: str = page.inner_text("#problem")
    return text


def test_from_an_empty_gallery_to_an_answer(
    served: Served, visit: Callable[..., Watched], shoot: Callable[..., Path]
) -> None:
    watched = visit(served)
    page = watched.page
    page.wait_for_selector("text=The gallery is empty")
    shoot(watched, "search-empty")
    assert watched.serious() == []
    page.click("text=Enrol the drawn people")
    page.wait_for_selector("text=24 crops of 8 identities")
    assert served.gallery.crop_count == len(CROPS)
    assert served.client.get("/identities").json()["identities"][0]["cameras"] == ["c1", "c2", "c3"]
    shoot(watched, "search-start")
    page.click("#try")
    page.wait_for_selector(MATCHES)
    assert "Match" in page.inner_text("#verdict") or "Ambiguous" in page.inner_text("#verdict")
    assert page.locator(MATCHES).count() == 8


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_pictures_are_dropped_or_pasted(
    event: str, filled: Served, visit: Callable[..., Watched], shoot: Callable[..., Path]
) -> None:
    watched = visit(filled)
    page = watched.page
    hand(page, event, PROBE, OTHER)
    page.wait_for_selector(MATCHES)
    assert page.locator("#probe li").count() == 2
    assert names(page)[0] == "0004"
    page.wait_for_load_state("networkidle")
    shoot(watched, "search", full_page=False)
    page.locator("#probe button.remove").first.click()
    watched.until("document.querySelector('#curl').textContent.split('images=').length === 2")


def test_filters_and_not_this_camera(filled: Served, visit: Callable[..., Watched], shoot: Callable[..., Path]) -> None:
    watched = visit(filled)
    page = watched.page
    choose(page, PROBE)
    assert page.locator(f"{MATCHES} .facts").first.inner_text().count("c3") > 0
    page.click("#not-own")
    watched.until("document.querySelector('#curl').textContent.includes('exclude_camera=c3')")
    assert not any("c3" in text for text in page.locator(f"{MATCHES} .facts p").all_inner_texts())
    page.fill("#since", "2026-05-02T00:00")
    page.fill("#top-k", "3")
    page.press("#top-k", "Enter")
    watched.until("document.querySelectorAll('#matches > li').length === 3")
    assert all("c2" in text for text in page.locator(f"{MATCHES} .facts p").all_inner_texts())
    assert "since=2026-05-02T00:00:00.000Z" in page.locator("#curl").text_content()
    shoot(watched, "search-filtered")
    page.fill("#until", "2026-05-01T00:00")
    page.click("#query button[type=submit]")
    assert problem(page) == "“Seen from” lies after “Seen before”; swap them."
    assert page.locator(MATCHES).count() == 3  # nothing is lost
    assert page.locator("#probe li").count() == 1


def test_the_camera_in_a_name_of_dukemtmc(filled: Served, visit: Callable[..., Watched], tmp_path: Path) -> None:
    watched = visit(filled)
    named = tmp_path / "0004_c3_f0046985.jpg"
    named.write_bytes(PROBE.read_bytes())
    choose(watched.page, named)
    watched.page.click("#not-own")
    watched.until("document.querySelector('#curl').textContent.includes('exclude_camera=c3')")


def test_attention_over_the_probe_and_each_match(
    filled: Served, visit: Callable[..., Watched], shoot: Callable[..., Path]
) -> None:
    watched = visit(filled, color_scheme="dark")
    page = watched.page
    choose(page, PROBE)
    page.check("#attention")
    page.wait_for_selector("#probe canvas")
    watched.until("document.querySelectorAll('#matches .lead img[src^=blob]').length === 8")
    shoot(watched, "search-attention-dark")
    assert watched.serious() == []
    page.uncheck("#attention")
    page.wait_for_selector("#probe canvas", state="detached")
    assert page.locator("#matches .lead img[src^=blob]").count() == 0


def test_search_again_with_this_one_and_back(filled: Served, visit: Callable[..., Watched]) -> None:
    watched = visit(filled)
    page = watched.page
    choose(page, PROBE)
    first = page.locator(f"{MATCHES} .again").nth(1)
    second = names(page)[1]
    first.click()
    watched.until(f"document.querySelector('#matches h2 .identity').textContent === '{second}'")
    assert page.locator("#verdict:focus").count() == 1
    assert page.locator("#probe li").count() == 1
    assert "--json" in page.locator("#curl").text_content()
    page.locator("#matches .thumb").first.click()
    watched.until("document.querySelector('#matches .number').textContent === '0.000'")
    page.go_back()
    watched.until(f"document.querySelector('#probe .name').textContent.startsWith('{second}')")


def test_the_request_as_curl_and_the_answer_as_json(filled: Served, visit: Callable[..., Watched]) -> None:
    watched = visit(filled)
    page = watched.page
    choose(page, PROBE)
    page.click("text=The request as curl")
    page.click("text=The answer as JSON")
    watched.until("document.querySelector('#json').textContent !== ''")
    shown = json.loads(page.inner_text("#json"))
    command = page.inner_text("#curl").replace("curl ", "curl -sf ", 1)
    done = subprocess.run(["sh", "-c", command], cwd=PROBE.parent, capture_output=True, check=True)
    assert json.loads(done.stdout)["matches"] == shown["matches"]


def test_wrong_input_is_answered_by_a_sentence_and_loses_nothing(
    filled: Served, visit: Callable[..., Watched], tmp_path: Path, shoot: Callable[..., Path]
) -> None:
    watched = visit(filled)
    page = watched.page
    page.click("#query button[type=submit]")
    assert problem(page) == "Choose, drop or paste at least one picture of the person first."
    page.fill("#not-cameras", "c3, gate 4!")
    choose_problem = tmp_path / "notes.txt"
    choose_problem.write_text("no picture")
    page.set_input_files("#files", [choose_problem])
    assert problem(page) == "“notes.txt” is not a JPEG, PNG or WebP picture; choose another."
    page.set_input_files("#files", [PROBE])
    page.wait_for_selector("text=“4!” is none.")
    assert page.input_value("#not-cameras") == "c3, gate 4!"
    page.fill("#not-cameras", "")
    for wrong in ("0", "101", "-3", ""):
        page.fill("#top-k", wrong)
        page.click("#query button[type=submit]")
        assert problem(page) == "Identities shown: write a number from 1 to 100."
    page.fill("#top-k", "5")
    page.click("#query button[type=submit]")
    page.wait_for_selector(MATCHES)
    watched.expected = {422}
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(PROBE.read_bytes()[:700])
    page.set_input_files("#files", [broken])
    page.wait_for_selector("text=Picture 2 (broken.jpg):")
    assert page.locator("#probe .wrong").count() == 1
    assert page.locator(MATCHES).count() == 5
    shoot(watched, "search-wrong-picture")
    assert watched.serious() == []
    page.click("[aria-label='Remove broken.jpg']")
    page.wait_for_selector("#problem", state="hidden")
    page.set_input_files("#files", [*CROPS[:20]])
    assert problem(page) == "A query takes at most 16 pictures; 5 pictures were left out."
    assert page.locator("#probe li").count() == 16


def test_signs_in_and_says_when_to_come_again(
    start: Callable[..., Served],
    visit: Callable[..., Watched],
    shoot: Callable[..., Path],
    tmp_path: Path,
) -> None:
    keys = tmp_path / "keys.json"
    key = create_key(keys, "desk", KeyScope.ENROL)
    served = start(keys_file=keys, rate_limit=30)
    watched = visit(served)
    page = watched.page
    page.wait_for_selector("dialog[open]")
    shoot(watched, "sign-in")
    assert watched.serious() == []
    page.fill("#key", "password")
    page.press("#key", "Enter")
    page.wait_for_selector("text=This is no Resight key, which begins with rsk_")
    watched.expected = {401}
    page.fill("#key", key[:-1])
    page.press("#key", "Enter")
    page.wait_for_selector("#sign-in-problem >> text=rsk_; copy all of it again.")
    page.fill("#key", key[:-1] + ("a" if key[-1] != "a" else "b"))
    page.press("#key", "Enter")
    page.wait_for_selector("#sign-in-problem >> text=There is no such key")
    page.fill("#key", key)
    page.press("#key", "Enter")
    page.wait_for_selector("text=The gallery is empty")
    assert page.inner_text("#account-name") == "desk · enrol"
    page.click("text=Enrol the drawn people")
    page.wait_for_selector("#try")
    watched.expected = {401, 429}
    page.set_input_files("#files", CROPS[:16])
    said = problem(page)
    assert re.search(r"30 images a minute; send the rest in \d+ s", said)
    assert page.locator("#probe li").count() == 16
    shoot(watched, "search-rate-limited")
    page.click("#sign-out")
    page.wait_for_selector("dialog[open]")
    page.click("#sign-in-cancel")
    assert "Sign in with an API key" in problem(page)


def test_by_keyboard_alone(filled: Served, visit: Callable[..., Watched]) -> None:
    watched = visit(filled)
    page = watched.page
    page.wait_for_selector("#try")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    seen = []
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.id"))
        if seen[-1] == "try":
            break
    assert seen[0] == "files"
    assert {"not-cameras", "only-cameras", "top-k", "attention", "clear"} <= set(seen)
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    page.wait_for_selector(MATCHES)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "identity"
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    watched.until("location.hash.startsWith('#crop=')")


@pytest.mark.parametrize(("name", "size"), [("phone", PHONE), ("wall", {"width": 3840, "height": 2160})])
def test_fits_a_phone_and_a_wall(
    name: str, size: dict[str, int], filled: Served, visit: Callable[..., Watched], shoot: Callable[..., Path]
) -> None:
    watched = visit(filled, viewport=size)
    page = watched.page
    choose(page, PROBE, OTHER)
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    shoot(watched, f"search-{name}")
    assert watched.serious() == []


def test_the_first_screen_is_light_and_an_answer_is_shown_at_once(
    filled: Served, visit: Callable[..., Watched]
) -> None:
    page = visit(filled, None).page
    sizes: list[int] = []
    page.on(
        "requestfinished",
        lambda asked: sizes.append(sum(asked.sizes()[part] for part in ("responseBodySize", "responseHeadersSize"))),
    )
    page.goto(filled.url)
    page.wait_for_selector("#try")
    timing = "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"
    interactive = page.evaluate(timing)
    print(f"first screen: {sum(sizes)} bytes, interactive after {interactive:.0f} ms")
    assert sum(sizes) < 150_000
    assert interactive < 1000
    page.evaluate(
        "new MutationObserver(() => (window.shown ??= performance.now()))"
        ".observe(document.querySelector('#matches'), {childList: true})"
    )
    choose(page, PROBE)
    page.wait_for_timeout(100)
    answered = page.evaluate(
        "performance.getEntriesByType('resource').find((one) => one.name.endsWith('/query')).responseEnd"
    )
    shown = page.evaluate("window.shown") - answered
    print(f"shown {shown:.1f} ms after the answer")
    assert shown < 300
