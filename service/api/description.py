"""`/openapi.json` and the page that shows it; both are public, as the source of the service is."""

from __future__ import annotations

import base64
import hashlib
import re

from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse

from service.api.auth import PUBLIC
from service.api.headers import CONTENT_SECURITY_POLICY
from service.api.runtime import NoParameters

router = APIRouter(include_in_schema=False, dependencies=[PUBLIC, NoParameters])

SCRIPTS = "https://cdn.jsdelivr.net/npm/swagger-ui-dist@5/"


@router.get("/openapi.json")
async def openapi(request: Request) -> JSONResponse:
    """The description of the API for programs, OpenAPI 3.1."""
    return JSONResponse(request.app.openapi())


@router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    """The description for people. Nothing but Swagger UI may run there, and it may ask only this service."""
    page = get_swagger_ui_html(
        openapi_url="openapi.json",  # relative: a proxy may serve under a path of its own
        title="Resight",
        swagger_favicon_url="data:,",
        swagger_ui_parameters={"validatorUrl": None},
    )
    page.headers["Content-Security-Policy"] = _policy(bytes(page.body).decode())
    return page


def _policy(page: str) -> str:
    """Allows the page's own inline scripts by their hashes, and the styles that Swagger UI sets."""
    inline = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in inline)
    scripts = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"{CONTENT_SECURITY_POLICY}; script-src {SCRIPTS} {scripts}; style-src {SCRIPTS} 'unsafe-inline';"
        " img-src data:; connect-src 'self'"
    )
