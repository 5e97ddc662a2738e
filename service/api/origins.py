"""Keeps web pages of others from using a visitor's browser to reach the service."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.problems import Kind, Problem, problem_response
from service.settings import is_loopback

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class OriginGuard:
    """Refuses with 403 what a browser sends on behalf of another site. Programs send no such headers.

    `names`: what the service is called. Another name in `Host` is one that its owner has pointed here for a page of
    his to read the answers (DNS rebinding). An address is none, which nobody can point elsewhere: probes and
    Prometheus ask by it. `local_only`, where there are no `names`: the service listens on loopback, and is localhost.
    """

    def __init__(self, app: ASGIApp, local_only: bool, names: frozenset[str] | None) -> None:
        self.app = app
        self.local_only = local_only
        self.names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reason = self._reason(scope["method"], Headers(scope=scope)) if scope["type"] == "http" else None
        if reason is None:
            await self.app(scope, receive, send)
        else:
            await problem_response(Problem(Kind.FORBIDDEN_ORIGIN, reason))(scope, receive, send)

    def _reason(self, method: str, headers: Headers) -> str | None:
        host = _host(f"//{headers.get('host', '')}")
        if self.names is None:
            if self.local_only and not is_loopback(host):
                return (
                    "This service listens on this machine only; address it as 127.0.0.1 or localhost,"
                    " or put the name that it shall have into RESIGHT_ALLOWED_HOSTS."
                )
        elif "host" in headers and host not in self.names | {"localhost"} and not _is_address(host):
            return (
                "This service goes by the names in RESIGHT_ALLOWED_HOSTS, by localhost and by IP addresses;"
                " address it so, or add the name that it shall have there."
            )
        if method in SAFE_METHODS:
            return None
        origin = headers.get("origin")
        if headers.get("sec-fetch-site") == "cross-site" or (origin is not None and _host(origin) != host):
            return "A page of another site sent this; only this service's own pages and programs may change anything."
        return None


def sent_by_own_page(headers: Headers) -> bool:
    """Whether a browser says that a page of this very service sent a request.

    Other ports of this machine are other origins but the same site, whose pages a SameSite cookie goes along with;
    `Sec-Fetch-Site` tells them apart. A proxy may have changed the port in `Host`, so that `Origin` cannot.
    """
    fetched_from = headers.get("sec-fetch-site")
    if fetched_from is not None:
        return fetched_from == "same-origin"
    origin = headers.get("origin")
    return origin is not None and _host(origin) == _host(f"//{headers.get('host', '')}")


def _host(url: str) -> str:
    """The host in lower case, without port and brackets; empty where there is none."""
    try:
        return (urlsplit(url).hostname or "").rstrip(".")  # a full name may end with the root's dot
    except ValueError:
        return ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
