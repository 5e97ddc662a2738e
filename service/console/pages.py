"""The console's pages and what they load. They hold no data: the browser asks the API for it, as any client does."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from fastapi import APIRouter, Request, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from service.api.auth import PUBLIC
from service.api.problems import Kind, Problem
from service.api.runtime import NoParameters

HERE = Path(__file__).parent
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".tar": "application/x-tar",
}
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self';"
    " form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
PAGES = {"search": "Search", "gallery": "Gallery", "identity": "Identities", "review": "Review", "status": "Status"}

router = APIRouter(include_in_schema=False, dependencies=[PUBLIC, NoParameters])


@dataclass(frozen=True)
class File:
    """What a browser loads; it asks each time whether what it has is still right."""

    content: bytes
    media_type: str
    policy: str | None = None
    etag: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "etag", f'"{hashlib.sha256(self.content).hexdigest()[:32]}"')

    def answer(self, request: Request) -> Response:
        """The file, or 304 for a browser that has it."""
        headers = {"ETag": self.etag, "Cache-Control": "no-cache"}
        if self.policy is not None:
            headers["Content-Security-Policy"] = self.policy
        if self.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(self.content, media_type=self.media_type, headers=headers)


def _pages() -> dict[str, File]:
    """Every page; addresses in it are relative, as a proxy may serve under a path of its own."""
    templates = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages = {}
    for name, title in PAGES.items():
        console = "console/" if name == "search" else ""
        root = "./" if name == "search" else "../"
        text = templates.get_template(f"{name}.html").render(
            name=name, title=title, pages=PAGES, console=console, root=root, static=f"{console}static"
        )
        pages[name] = File(text.encode(), "text/html; charset=utf-8", CONTENT_SECURITY_POLICY)
    return pages


def _files() -> dict[str, File]:
    found = sorted((HERE / "static").iterdir())
    return {path.name: File(path.read_bytes(), MEDIA_TYPES[path.suffix]) for path in found}


FILES = _files()
RENDERED = _pages()


@router.get("/")
async def search(request: Request) -> Response:
    """Where a browser starts."""
    return RENDERED["search"].answer(request)


@router.get("/console/{page}")
async def page(page: str, request: Request) -> Response:
    """One of the other pages."""
    return _known(RENDERED, page).answer(request)


@router.get("/console/static/{name}")
async def static(name: str, request: Request) -> Response:
    """A style sheet, a script or a picture of the pages."""
    return _known(FILES, name).answer(request)


def _known(files: dict[str, File], name: str) -> File:
    if name not in files or name == "search":
        raise Problem(Kind.NOT_FOUND, "The console has no such page; begin at /.")
    return files[name]
