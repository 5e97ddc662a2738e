"""`/openapi.json` and the page that shows it; both are public, as the source of the service is."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse

from service.api.auth import PUBLIC
from service.api.reference import reference_page
from service.api.runtime import NoParameters

router = APIRouter(include_in_schema=False, dependencies=[PUBLIC, NoParameters])


@router.get("/openapi.json")
async def openapi(request: Request) -> JSONResponse:
    """The description of the API for programs, OpenAPI 3.1."""
    return JSONResponse(request.app.openapi())


@router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    """The description for people. It needs no script, and nothing of it comes from the network."""
    page, policy = reference_page(request.app.openapi())
    return HTMLResponse(page, headers={"Content-Security-Policy": policy})
