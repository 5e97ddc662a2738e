"""README and docs are held to the code: settings and metrics are told, blocks run, links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from service.settings import Settings
from tests.deploy.headings import anchors
from tests.serving import Served

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
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
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        program = ADDRESS.sub(service.url, block)
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert "0001" in done.stdout or done.stdout == ""


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/privacy.md", "docs/architecture.md"])
def test_links_lead_somewhere(page: str) -> None:
    file = ROOT / page
    for path, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", file.read_text(encoding="utf-8")):
        target = (file.parent / path).resolve() if path else file
        assert target.exists(), path
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), (path, anchor)
