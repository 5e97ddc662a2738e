"""The console's cookie: what it is, what it may do, and when it stops."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from http.cookies import SimpleCookie
from pathlib import Path

import httpx
import pytest

from service.keys import KeyScope, create_key, revoke_key
from service.sessions import SESSION_SECONDS
from service.settings import Settings
from tests.drawn_crops import crop, uploads
from tests.service.api.canonical_error import expect
from tests.serving import Served, serve

MISSING = "/gallery/00000000-0000-0000-0000-000000000000"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def desk(file: Path) -> str:
    """The key of somebody at a browser."""
    return create_key(file, "desk", KeyScope.ENROL)


@pytest.fixture
def guarded(make_settings: Callable[..., Settings], file: Path, desk: str) -> Iterator[Served]:
    """A running service with that key; its client keeps cookies, as a browser does."""
    with serve(make_settings(keys_file=file)) as served:
        yield served


def sign_in(served: Served, key: str, **headers: str) -> httpx.Response:
    return served.client.post("/session", headers={"Authorization": f"Bearer {key}", **headers})


def test_a_browser_signs_in_works_and_signs_out(guarded: Served, desk: str) -> None:
    expect(guarded.client.get("/model"), "key-required")
    begun = sign_in(guarded, desk)
    assert begun.json() == {"actor": "desk", "scope": "enrol", "expires_in": SESSION_SECONDS}
    (cookie,) = SimpleCookie(begun.headers["set-cookie"]).values()
    assert (cookie.key, cookie["httponly"], cookie["samesite"], cookie["path"]) == (
        "resight_session",
        True,
        "strict",
        "/",
    )
    assert (cookie["max-age"], cookie["secure"], cookie["domain"]) == (str(SESSION_SECONDS), "", "")
    assert desk not in begun.headers["set-cookie"]

    assert guarded.client.get("/model").status_code == 200
    own = {"Origin": guarded.url, "Sec-Fetch-Site": "same-origin"}
    assert guarded.client.post("/embed", files=uploads(crop(1)), headers=own).status_code == 200
    expect(guarded.client.delete(MISSING, headers=own), "scope-too-small")

    kept = guarded.client.cookies["resight_session"]
    ended = guarded.client.delete("/session", headers=own)
    assert ended.status_code == 204
    assert "Max-Age=0" in ended.headers["set-cookie"]
    assert "resight_session" not in guarded.client.cookies
    stolen = guarded.client.get("/model", headers={"Cookie": f"resight_session={kept}"})
    assert "sign in again" in expect(stolen, "key-required")["detail"]
    assert guarded.client.delete("/session").status_code == 204


def test_over_https_the_cookie_is_for_https_only(guarded: Served, desk: str) -> None:
    header = sign_in(guarded, desk, **{"X-Forwarded-Proto": "https"}).headers["set-cookie"]
    (cookie,) = SimpleCookie(header).values()
    assert cookie["secure"] is True


FOREIGN = {
    "another site": {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
    "another port of this machine": {"Origin": "http://127.0.0.1:3000", "Sec-Fetch-Site": "same-site"},
    "no page at all": {},
    "a page without origin": {"Origin": "null"},
}


@pytest.mark.parametrize("name", FOREIGN)
def test_only_own_pages_may_write_with_the_cookie(guarded: Served, desk: str, name: str) -> None:
    sign_in(guarded, desk)
    expect(guarded.client.post("/gallery", files=uploads(crop(1)), headers=FOREIGN[name]), "forbidden-origin")
    assert guarded.client.get("/model", headers=FOREIGN[name]).status_code == 200


def test_an_old_browser_that_names_its_origin_only_may(guarded: Served, desk: str) -> None:
    sign_in(guarded, desk)
    answer = guarded.client.post("/embed", files=uploads(crop(1)), headers={"Origin": guarded.url})
    assert answer.status_code == 200


def test_a_key_counts_before_the_cookie_and_needs_no_origin(guarded: Served, desk: str, file: Path) -> None:
    sign_in(guarded, desk)
    admin = {"Authorization": f"Bearer {create_key(file, 'boss', KeyScope.ADMIN)}"}
    assert guarded.client.delete(MISSING, headers=admin).status_code not in (401, 403)
    expect(guarded.client.get("/model", headers={"Authorization": "Bearer rsk_wrong"}), "unknown-key")


def test_a_session_ends_with_its_key_and_begins_with_one(guarded: Served, desk: str, file: Path) -> None:
    sign_in(guarded, desk)
    own = {"Origin": guarded.url, "Sec-Fetch-Site": "same-origin"}
    expect(guarded.client.post("/session", headers=own), "key-required")
    assert guarded.client.get("/model").status_code == 200
    revoke_key(file, "desk")
    expect(guarded.client.get("/model"), "key-required")


def test_a_restart_signs_out(make_settings: Callable[..., Settings], file: Path, desk: str) -> None:
    with serve(make_settings(keys_file=file)) as served:
        cookie = sign_in(served, desk).cookies["resight_session"]
    with serve(make_settings(keys_file=file)) as served:
        expect(served.client.get("/model", headers={"Cookie": f"resight_session={cookie}"}), "key-required")


def test_without_keys_nobody_needs_to_sign_in(client: httpx.Client) -> None:
    answer = client.post("/session")
    assert answer.json() == {"actor": "anonymous", "scope": "admin", "expires_in": None}
    assert "set-cookie" not in answer.headers
    assert client.delete("/session").status_code == 204
    expect(client.post("/session", params={"key": "rsk_x"}), "unknown-field")
