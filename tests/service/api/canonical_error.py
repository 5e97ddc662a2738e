"""The one shape of every error of the API."""

from __future__ import annotations

from typing import Any

import httpx

from service.api.problems import Kind, ProblemBody


def expect(answer: httpx.Response, slug: str, index: int | None = None) -> dict[str, Any]:
    """The canonical shape of every error of this API."""
    (kind,) = [kind for kind in Kind if kind.slug == slug]
    body: dict[str, Any] = answer.json()
    assert body["type"] == f"/problems/{slug}", body
    assert answer.status_code == body["status"] == kind.status
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(body) - {"index", "reasons"} == {"type", "title", "status", "detail", "instance"}
    ProblemBody.model_validate(body)
    assert body["instance"] == answer.headers["X-Request-Id"]
    assert body["title"] == kind.title
    assert body["detail"].endswith(".")
    assert "Traceback" not in body["detail"]
    assert body.get("index") == index
    return body
