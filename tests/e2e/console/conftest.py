"""A browser at the real service with the shipped model, watched for everything it complains about.

The pictures of the screens go to the folder that CONSOLE_SCREENSHOTS names, else to one of pytest's.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from service.settings import Settings
from tests.serving import Served, serve

ROOT = Path(__file__).parents[3]
MODEL = ROOT / "models" / "market1501-int8.onnx"
CROPS = sorted((ROOT / "examples" / "crops").glob("*.jpg"))
AXE = (Path(__file__).parent / "axe.min.js").read_text(encoding="utf-8")
FAILED = re.compile(r"Failed to load resource: the server responded with a status of (\d+)")
VIOLATIONS = (
    "document.addEventListener('securitypolicyviolation',"
    " (event) => console.error(`CSP: ${event.violatedDirective} ${event.blockedURI}`))"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this folder; `make test-browser` runs them."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@dataclass
class Watched:
    """A page, and what its browser complained about; `expected` has the HTTP errors that a test means to cause."""

    page: Any
    url: str
    expected: set[int] = field(default_factory=set)
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def open(self, path: str = "/") -> Any:
        """Goes to a path of the service and answers the page."""
        self.page.goto(self.url + path)
        return self.page

    def until(self, expression: str, seconds: float = 15) -> None:
        """Waits for some JavaScript to be true; Playwright's own wait needs a policy that allows eval."""
        deadline = time.monotonic() + seconds
        while not self.page.evaluate(expression):
            assert time.monotonic() < deadline, f"this never was true: {expression}"
            self.page.wait_for_timeout(20)

    def unexpected(self) -> list[str]:
        """The complaints, and requests to other places, that no test asked for."""
        failed = ((complaint, FAILED.match(complaint)) for complaint in self.complaints)
        odd = [complaint for complaint, found in failed if not (found and int(found[1]) in self.expected)]
        return odd + [url for url in self.requests if not url.startswith((self.url, "blob:", "data:"))]

    def serious(self) -> list[str]:
        """What axe-core finds serious or critical on the page as it is now."""
        self.page.evaluate(AXE)  # not by a script element, which the page's policy forbids
        found = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{one['id']}: {one['help']}: {node['html']} {node['failureSummary']}"
            for one in found["violations"]
            if one["impact"] in ("serious", "critical")
            for node in one["nodes"]
        ]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium without a window; of one module, as Playwright's event loop would be in the way of others'."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("there is no chromium on the PATH (apt-get install chromium)")
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Served]]:
    """Starts services with the shipped model and an empty gallery, which run until the module's end."""
    with ExitStack() as stack:

        def started(**changes: Any) -> Served:
            gallery = f"sqlite:///{tmp_path_factory.mktemp('gallery')}"
            settings = Settings(**{"model": MODEL, "device": "cpu", "gallery": gallery, **changes})
            return stack.enter_context(serve(settings))

        yield started


@pytest.fixture(scope="module")
def running(start: Callable[..., Served]) -> Served:
    """A service of the module, for `served` and `filled`."""
    return start()


@pytest.fixture
def served(running: Served) -> Served:
    """A running service with an empty gallery."""
    ids = [crop["crop_id"] for crop in running.client.get("/gallery", params={"limit": 1000}).json()["crops"]]
    if ids:
        assert running.client.post("/erasures", json={"crop_ids": ids}).status_code == 200
    return running


def enrol(served: Served, paths: list[Path], **labels: str) -> list[str]:
    """Enrols pictures, by the API, and answers their crops' ids."""
    files = [("images", (path.name, path.read_bytes(), "image/jpeg")) for path in paths]
    answer = served.client.post("/gallery", files=files, data=labels)
    assert answer.status_code in (200, 201), answer.text
    return [result["crop_id"] for result in answer.json()["results"]]


@pytest.fixture
def filled(served: Served) -> Served:
    """A running service whose gallery holds the drawn crops, with identities and cameras after their names."""
    for path in CROPS:
        identity, camera = path.name.split("_")[:2]
        enrol(served, [path], identity=identity, camera=camera[:2], captured_at=f"2026-05-0{camera[1]}T08:30:00Z")
    return served


@pytest.fixture
def visit(browser: Any, request: pytest.FixtureRequest) -> Iterator[Callable[..., Watched]]:
    """Opens pages in browsers of their own, and in the end sees that none complained.

    visit(served, "/console/gallery", viewport={"width": 390, "height": 844}, color_scheme="dark")
    """
    opened: list[Watched] = []
    with ExitStack() as stack:

        def visited(served: Served, path: str | None = "/", **options: Any) -> Watched:
            defaults = {"viewport": {"width": 1280, "height": 800}, "locale": "en-GB", "timezone_id": "UTC"}
            context = browser.new_context(**{**defaults, **options})
            stack.callback(context.close)
            context.add_init_script(VIOLATIONS)
            page = context.new_page()
            page.set_default_timeout(15_000)
            watched = Watched(page, served.url)
            page.on("console", lambda said: watched.complaints.append(said.text) if said.type == "error" else None)
            page.on("pageerror", lambda error: watched.complaints.append(str(error)))
            page.on("request", lambda asked: watched.requests.append(asked.url))
            opened.append(watched)
            if path is not None:
                watched.open(path)
            return watched

        yield visited
        for watched in opened:
            assert watched.unexpected() == []


@pytest.fixture
def shoot(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes a picture of a page, whole if `full_page`, for a person to look at."""
    named = os.environ.get("CONSOLE_SCREENSHOTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)

    def shot(watched: Watched, name: str, full_page: bool = True) -> Path:
        path = folder / f"{name}.png"
        watched.page.screenshot(path=path, full_page=full_page)
        return path

    return shot
