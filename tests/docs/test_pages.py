"""README and docs are held to the code: settings and metrics are told, blocks run, links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from inspect import signature
from pathlib import Path

import httpx
import pytest

import service.client as client_package
from service.client import AsyncResight, Resight
from service.settings import Settings
from tests.deploy.headings import anchors
from tests.serving import Served

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CLIENT = (ROOT / "docs" / "python-client.md").read_text(encoding="utf-8")
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
ADDRESS = re.compile(r"(?:http://)?(?:localhost|127\.0\.0\.1):8000")


def test_every_setting_is_in_the_table_and_no_other() -> None:
    rows = re.findall(r"^\| (`RESIGHT_.*?) \|", README, re.MULTILINE)
    documented = {name for row in rows for name in re.findall(r"`(RESIGHT_\w+)`", row)}
    mentioned = {*documented, *re.findall(r"`(RESIGHT_\w+)=?[^`]*`", README)}
    settings = {f"RESIGHT_{name.upper()}" for name in Settings.model_fields}
    assert settings <= mentioned
    assert documented <= settings


def test_every_metric_is_in_the_table_and_no_other(client: httpx.Client) -> None:
    kinds = dict(re.findall(r"^# TYPE (resight_\w+) (\w+)$", client.get("/metrics").text, re.MULTILINE))
    served = {name.removesuffix("_total"): kind for name, kind in kinds.items() if not name.endswith("_created")}
    documented = dict(re.findall(r"^\| `(resight_\w+)` \| (counter|gauge|histogram) \|", OPERATIONS, re.MULTILINE))
    assert documented == served


def test_the_curl_and_python_blocks_of_the_readme_run(service: Served) -> None:
    curls = re.findall(r"^    (curl .*)$", README, re.MULTILINE)
    assert curls
    for line in curls:
        command = ADDRESS.sub(service.url, line).replace("curl ", "curl -sS --fail-with-body ", 1)
        done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, (line, done.stdout, done.stderr)
    for printed in run_python_blocks(README, service):
        assert "0001" in printed or printed == ""


def run_python_blocks(page: str, service: Served) -> list[str]:
    """What each of a page's Python blocks prints, run from the checkout."""
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert blocks
    printed = []
    for block in blocks:
        program = ADDRESS.sub(service.url, block)
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
    return printed


def test_the_blocks_of_the_clients_page_run(service: Served) -> None:
    first, awaited, refused, many, attention = run_python_blocks(CLIENT, service)
    assert "'0001'" in first
    assert "'0001'" in awaited
    assert refused.startswith("422 /problems/not-an-image ")
    assert many == ""
    assert attention.startswith("(1, ")
    assert service.client.get("/gallery", params={"camera": "c1"}).json()["crops"]


def test_every_public_name_of_the_client_is_on_its_page() -> None:
    table = CLIENT[CLIENT.index("## Methods") : CLIENT.index("## What is raised")]
    documented = set(re.findall(r"`(\w+)\(", "\n".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE))))
    methods = {name for kind in (Resight, AsyncResight) for name in dir(kind) if not name.startswith("_")}
    assert documented == methods - {"base_url"}
    names = set(client_package.__all__) - {"DEFAULT_URL"}
    assert {name for name in names if not re.search(rf"\b{name}\b", CLIENT)} == set()
    raised = {
        name
        for name in names
        if isinstance(kind := getattr(client_package, name), type) and issubclass(kind, Exception)
    }
    assert raised == {name for name in raised if re.search(rf"^\| `{name}`", CLIENT, re.MULTILINE)}


def test_every_argument_of_the_client_is_on_its_page() -> None:
    given = {name for name in signature(Resight).parameters if name != "transport"}
    given |= {name for method in (Resight.enrol, Resight.query, Resight.erase) for name in signature(method).parameters}
    unsaid = {name for name in given if not re.search(rf"\b{name}\b", CLIENT)}
    assert unsaid - {"self", "crops_per_identity"} == set()


@pytest.mark.parametrize(
    "page",
    [
        *("README.md", "CONTRIBUTING.md", "docs/privacy.md", "docs/architecture.md", "docs/python-client.md"),
        *("docs/training.md", "docs/from-cameras.md"),
    ],
)
def test_links_lead_somewhere(page: str) -> None:
    file = ROOT / page
    for path, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", file.read_text(encoding="utf-8")):
        target = (file.parent / path).resolve() if path else file
        assert target.exists(), path
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), (path, anchor)
