"""Who calls, and whether that is enough. Each route says beside itself which scope it needs.

    @router.post("/query", dependencies=[QUERY, NoParameters])

The check stands in front of the application, not in the dependency: who may not come in makes the service neither
read a body nor look at parameters, and a route that says nothing keeps the service from being built.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fastapi import Depends, Request, Security
from fastapi.params import Security as SecurityDependency
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.origins import SAFE_METHODS, sent_by_own_page
from service.api.problems import Kind, Problem, problem_response
from service.keys import ANONYMOUS, KEY, Key, KeyRing, KeyScope
from service.sessions import Sessions

COOKIE = "resight_session"
BEARER = re.compile(r"bearer +(\S+)", re.IGNORECASE | re.ASCII)

_KEY = HTTPBearer(
    scheme_name="key",
    description="`resight keys create` makes one; needed where the service was given a key file.",
    auto_error=False,
)


async def _anybody() -> None:
    """Marks a route that needs no key."""


PUBLIC = Depends(_anybody)
QUERY = Security(_KEY, scopes=[KeyScope.QUERY])
ENROL = Security(_KEY, scopes=[KeyScope.ENROL])
ADMIN = Security(_KEY, scopes=[KeyScope.ADMIN])


@dataclass(frozen=True)
class Caller:
    """Who sent a request. `key` is None where the service has no keys: then everybody may do everything."""

    key: Key | None
    by_cookie: bool = False

    @property
    def name(self) -> str:
        """What the audit log calls the caller."""
        return ANONYMOUS if self.key is None else self.key.name

    @property
    def scope(self) -> KeyScope:
        """What the caller may do."""
        return KeyScope.ADMIN if self.key is None else self.key.scope


class RateLimit:
    """Images a minute for each actor: a bucket that holds those of a minute and is filled evenly. One thread's own.

    A request of more images than the bucket holds waits for a full one and leaves a debt behind.
    """

    def __init__(self, images_a_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._size = images_a_minute
        self._clock = clock
        self._levels: dict[str, tuple[float, float]] = {}  # images left, as of when

    def take(self, actor: str, images: int) -> None:
        """Counts images. Raises Problem (429) with the seconds to wait when there are not so many left."""
        now = self._clock()
        level, then = self._levels.get(actor, (self._size, now))
        level = min(self._size, level + (now - then) * self._size / 60)
        missing = min(images, self._size) - level
        if missing > 0:
            wait = math.ceil(missing * 60 / self._size)
            detail = f"This key may send {self._size} images a minute; send the rest in {wait} s."
            raise Problem(Kind.RATE_LIMITED, detail, headers={"Retry-After": str(wait)})
        self._levels[actor] = level - images, now


@dataclass(frozen=True)
class Door:
    """What a running service knows about who may come in; without `keys` everybody may."""

    keys: KeyRing | None = None
    rates: RateLimit | None = None
    sessions: Sessions = field(default_factory=Sessions)

    @property
    def trouble(self) -> str | None:
        """What somebody should look after, though the service goes on."""
        return None if self.keys is None else self.keys.trouble

    def caller(self, connection: HTTPConnection) -> Caller:
        """Who sent a request; its key counts before its cookie. Raises Problem (401)."""
        if self.keys is None:
            return Caller(None)
        given = connection.headers.getlist("authorization")
        if given:
            key = self.keys.find(_token(given))
            if key is None:
                raise _unknown("There is no such key; it may have been revoked.")
            return Caller(key)
        cookie = connection.cookies.get(COOKIE)
        if cookie is None:
            raise key_required("Send a key as `Authorization: Bearer rsk_…`; `resight keys create` makes one.")
        key = self.sessions.holder(cookie, self.keys)
        if key is None:
            raise key_required("The session has ended; sign in again.")
        return Caller(key, by_cookie=True)

    def admit(self, connection: HTTPConnection, method: str, needed: KeyScope | None) -> Caller | None:
        """Who sent a request that needs this scope, or None and nobody in particular where it needs none.

        Raises Problem (401, 403).
        """
        try:
            caller = self.caller(connection)
        except Problem:
            if needed is None:
                return None
            raise
        if needed is None:
            return caller
        if caller.by_cookie and method not in SAFE_METHODS and not sent_by_own_page(connection.headers):
            raise Problem(Kind.FORBIDDEN_ORIGIN, "Only this service's own pages may change anything with its cookie.")
        if not caller.scope.covers(needed):
            detail = f"The key {caller.name} has the scope {caller.scope}; this needs {needed}."
            challenge = f'Bearer realm="resight", error="insufficient_scope", scope="{needed}"'
            raise Problem(Kind.SCOPE_TOO_SMALL, detail, headers={"WWW-Authenticate": challenge})
        return caller


def key_required(detail: str) -> Problem:
    """401 for a request that does not say who sends it."""
    return Problem(Kind.KEY_REQUIRED, detail, headers={"WWW-Authenticate": 'Bearer realm="resight"'})


def _unknown(detail: str) -> Problem:
    challenge = 'Bearer realm="resight", error="invalid_token"'
    return Problem(Kind.UNKNOWN_KEY, detail, headers={"WWW-Authenticate": challenge})


def _token(headers: Sequence[str]) -> str:
    found = BEARER.fullmatch(headers[0].strip()) if len(headers) == 1 else None
    if found is None:
        raise _unknown("The Authorization header has another form than `Bearer rsk_…`, given once; copy the key again.")
    if not KEY.fullmatch(found[1]):
        raise _unknown("This is no Resight key, which begins with rsk_; copy all of it again.")
    return found[1]


class Doorkeeper:
    """Lets requests through to those `routes` that they may use, and says on `request.state` who sends them.

    `route` is the path, as it is declared, of the one that is asked. `caller` is a Caller, or None where a public
    route was asked without a key that counts; `actor` is its name, else `anonymous`. An address that is none of
    `routes` needs some key. Raises LookupError when a route does not say which scope it needs.
    """

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute]) -> None:
        self.app = app
        self._needs = [(route, needed_scope(route)) for route in routes]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        door: Door = scope["app"].state.runtime.door
        try:
            caller = door.admit(HTTPConnection(scope), scope["method"], self._needed(scope))
        except Problem as problem:
            await problem_response(problem)(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["caller"] = caller
        state["actor"] = ANONYMOUS if caller is None else caller.name
        await self.app(scope, receive, send)

    def _needed(self, scope: Scope) -> KeyScope | None:
        for route, needed in self._needs:
            if route.matches(scope)[0] is Match.FULL:
                scope.setdefault("state", {})["route"] = getattr(route, "path", None)
                return needed
        return KeyScope.QUERY


def needed_scope(route: BaseRoute) -> KeyScope | None:
    """The scope that a route declares, None for a public one. Raises LookupError when it declares none, or several."""
    dependencies = route.dependencies if isinstance(route, APIRoute) else ()
    declared: list[KeyScope | None] = [None for one in dependencies if one == PUBLIC]
    for one in dependencies:
        if isinstance(one, SecurityDependency):
            declared += [KeyScope(scope) for scope in one.scopes or ()]
    if len(declared) != 1:
        raise LookupError(f"{route} must have one of PUBLIC, QUERY, ENROL and ADMIN of {__name__} in its dependencies")
    return declared[0]


def count_images(request: Request, images: int) -> None:
    """Counts images that were admitted against what the caller may send. Raises Problem (429)."""
    door: Door = request.app.state.runtime.door
    if door.rates is not None:
        door.rates.take(request.state.actor, images)
