"""docs/http-api.md is held to the code."""

from __future__ import annotations

import re
from pathlib import Path

from service.api.problems import Kind
from service.app import create_app
from service.settings import Settings

PAGE = (Path(__file__).parents[3] / "docs" / "http-api.md").read_text(encoding="utf-8")
UNLISTED = {Kind.REQUEST_REFUSED}  # what Starlette itself may refuse; no route of ours does


def test_every_problem_is_in_the_table_with_its_status() -> None:
    documented = {
        (int(status), slug)
        for status, types in re.findall(r"^\| (\d{3}) \| (.*?) \|", PAGE, re.MULTILINE)
        for slug in re.findall(r"`([a-z-]+)`", types)
    }
    assert documented == {(kind.status, kind.slug) for kind in Kind if kind not in UNLISTED}


def test_every_route_is_in_the_table() -> None:
    schema = create_app(Settings(allow_anonymous=True)).openapi()
    routes = {(method.upper(), path) for path, methods in schema["paths"].items() for method in methods}
    documented = set()
    for cell in re.findall(r"^\| (`(?:GET|POST|PATCH|DELETE).*?) \|", PAGE, re.MULTILINE):
        words = re.findall(r"[A-Z]{3,}|/[^`\s,]+", cell)
        methods = [word for word in words if word.isupper()]
        paths = [word for word in words if word.startswith("/")]
        documented |= {(method, path) for method in methods for path in paths}
    assert documented == routes
