"""The console's pages as a server of files: what they tell a browser, how heavy they are, and that they are alone."""

from __future__ import annotations

import re
import tarfile
import tomllib
from pathlib import Path

import httpx
import pytest

from service.console.pages import FILES, HERE, PAGES
from tests.service.api.canonical_error import expect

ROOT = Path(__file__).parents[3]
POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' blob: data:",
    "connect-src": "'self'",
    "form-action": "'self'",
    "frame-ancestors": "'none'",
    "base-uri": "'none'",
}
ADDRESSES = {name: "/" if name == "search" else f"/console/{name}" for name in PAGES}
LINKED = re.compile(r'(?:src|href)="([^"#]+)"')
IMPORTED = re.compile(r'^(?:import|export) .*?"\./([^"]+)"', re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_may_ask_its_own_service_and_nobody_else(client: httpx.Client, name: str) -> None:
    page = client.get(ADDRESSES[name])
    assert page.status_code == 200
    rules = dict(rule.strip().split(" ", 1) for rule in page.headers["Content-Security-Policy"].split(";"))
    assert rules == POLICY
    assert page.headers["X-Frame-Options"] == "DENY"
    assert page.headers["Cache-Control"] == "no-cache"
    assert f"<title>{PAGES[name]} · Resight</title>" in page.text
    assert not re.search(r"<style|<script(?![^>]* src=)|\bstyle=|\bon[a-z]+=", page.text)
    for link in LINKED.findall(page.text):
        assert client.get(str(page.url.join(link))).status_code == 200, link


def test_nothing_comes_from_elsewhere() -> None:
    for path in [*(HERE / "static").iterdir(), *(HERE / "templates").iterdir()]:
        if path.suffix == ".tar":
            continue
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|//[a-z0-9.-]+\.[a-z]{2,}/", text), path.name
        assert "innerHTML" not in text, path.name


def test_a_browser_loads_a_file_once(client: httpx.Client) -> None:
    for path in ("/", "/console/static/api.js", "/console/static/console.css"):
        first = client.get(path)
        again = client.get(path, headers={"If-None-Match": first.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["ETag"] == first.headers["ETag"]
        assert client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    assert client.get("/console/static/api.js").headers["Content-Type"].startswith("text/javascript")


@pytest.mark.parametrize(
    "path", ["/console/nowhere", "/console/search", "/console/static/nowhere.js", "/console/static"]
)
def test_what_is_not_there(client: httpx.Client, path: str) -> None:
    expect(client.get(path), "not-found")


def test_pages_take_no_parameters(client: httpx.Client) -> None:
    expect(client.get("/?q=1"), "unknown-field")


@pytest.mark.parametrize("name", PAGES)
def test_a_screen_is_light(client: httpx.Client, name: str) -> None:
    page = client.get(ADDRESSES[name])
    wanted = {link.rpartition("/")[2] for link in LINKED.findall(page.text) if "/static/" in f"/{link}"}
    loaded: set[str] = set()
    while wanted:
        file = wanted.pop()
        loaded.add(file)
        if file.endswith(".js"):
            wanted |= set(IMPORTED.findall(FILES[file].content.decode())) - loaded
    assert f"{name}.js" in loaded
    weight = len(page.content) + sum(len(FILES[file].content) for file in loaded)
    assert weight < 100_000, weight


def test_the_drawn_people_are_the_repositorys() -> None:
    crops = {path.name: path.read_bytes() for path in (ROOT / "examples" / "crops").glob("*.jpg")}
    with tarfile.open(HERE / "static" / "drawn-crops.tar") as archive:
        members = {member.name: archive.extractfile(member) for member in archive}
        assert {name: file.read() for name, file in members.items() if file is not None} == crops


def test_a_wheel_contains_what_the_pages_are_made_of() -> None:
    packaging = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert packaging == {"service.console": ["templates/*", "static/*"]}
    assert all(path.is_file() for folder in ("templates", "static") for path in (HERE / folder).iterdir())
