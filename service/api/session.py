"""`/session`: a browser signs in with a key once, and then has a cookie that no script can read."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from service.api.answers import SessionResponse
from service.api.auth import COOKIE, PUBLIC, QUERY, Caller, key_required
from service.api.problems import Kind, documented
from service.api.runtime import NoParameters, RuntimeDep
from service.sessions import SESSION_SECONDS

router = APIRouter(prefix="/session", tags=["session"])


@router.post("", dependencies=[QUERY, NoParameters], responses=documented(Kind.UNKNOWN_FIELD))
async def begin(request: Request, response: Response, runtime: RuntimeDep) -> SessionResponse:
    """Signs the browser in that sends a key. It ends after 12 hours, with the key, and when the service ends.

    A service without keys answers too, and sets no cookie.
    """
    caller: Caller = request.state.caller
    if caller.by_cookie:
        raise key_required("A session begins with a key; send it as `Authorization: Bearer rsk_…`.")
    if caller.key is None:
        return SessionResponse(actor=caller.name, scope=caller.scope, expires_in=None)
    session = runtime.door.sessions.begin(caller.key)
    response.set_cookie(
        COOKIE,
        session,
        max_age=SESSION_SECONDS,
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return SessionResponse(actor=caller.name, scope=caller.scope, expires_in=SESSION_SECONDS)


@router.delete(
    "", status_code=204, dependencies=[PUBLIC, NoParameters], responses=documented(Kind.UNKNOWN_FIELD, public=True)
)
async def end(request: Request, response: Response, runtime: RuntimeDep) -> None:
    """Signs the browser out. There need not be a session."""
    door = runtime.door
    cookie = request.cookies.get(COOKIE)
    if cookie is not None and door.keys is not None:
        door.sessions.end(cookie, door.keys)
    response.delete_cookie(COOKIE, path="/", secure=request.url.scheme == "https", httponly=True, samesite="strict")
