"""The pages about running the service link to what is there."""

from __future__ import annotations

import re

import pytest

from tests.deploy.headings import anchors
from tests.deploy.monitoring import ROOT


@pytest.mark.parametrize("page", ["docs/scaling.md", "docs/operations.md", "deploy/kubernetes/README.md"])
def test_links_lead_somewhere(page: str) -> None:
    file = ROOT / page
    links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", file.read_text(encoding="utf-8"))
    assert links
    for path, anchor in links:
        target = (file.parent / path).resolve() if path else file
        assert target.exists(), path
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), (path, anchor)
