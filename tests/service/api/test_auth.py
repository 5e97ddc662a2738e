"""Every route and every scope: 401, 403 or through; and how many images a key may send."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI

from service.api.auth import PUBLIC, QUERY, Doorkeeper, RateLimit, needed_scope
from service.api.problems import Problem
from service.app import create_app
from service.keys import KeyScope, KeysError, create_key, revoke_key
from service.settings import Settings
from tests.drawn_crops import crop, uploads
from tests.service.api.canonical_error import expect
from tests.serving import Served, serve

PAGE = (Path(__file__).parents[3] / "docs" / "http-api.md").read_text(encoding="utf-8")
FILLED = {"crop_id": "00000000-0000-0000-0000-000000000000", "identity": "nobody"}


def operations() -> dict[tuple[str, str], KeyScope | None]:
    """(method, path) of every documented route, and the scope it needs, as OpenAPI tells the users."""
    schema = create_app(Settings(allow_anonymous=True)).openapi()
    return {
        (method.upper(), path): KeyScope(one["security"][0]["key"][0]) if "security" in one else None
        for path, methods in schema["paths"].items()
        for method, one in methods.items()
    }


ROUTES = operations()


@dataclass(frozen=True)
class Guarded:
    """A running service with keys, and the keys by their names."""

    served: Served
    file: Path
    keys: dict[str, str]

    def ask(self, method: str, path: str, authorization: str | None, **options: Any) -> httpx.Response:
        headers = {} if authorization is None else {"Authorization": authorization}
        return self.served.client.request(method, path, headers=headers, **options)


@pytest.fixture(scope="module")
def guarded(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    file = folder / "keys.json"
    keys = {name: create_key(file, name, KeyScope(name)) for name in ("query", "enrol", "admin")}
    keys["revoked"] = create_key(file, "revoked", KeyScope.ADMIN)
    revoke_key(file, "revoked")
    settings = Settings(
        model=model_path,
        device="cpu",
        gallery=f"sqlite:///{folder / 'data'}",
        threads=2,
        keys_file=file,
        host="0.0.0.0",
    )
    with serve(settings) as served:
        yield Guarded(served, file, keys)


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_route_for_every_scope(guarded: Guarded, method: str, path: str) -> None:
    needed = ROUTES[method, path]
    address = path.format(**FILLED)
    for scope in KeyScope:
        answer = guarded.ask(method, address, f"Bearer {guarded.keys[scope]}")
        if needed is None or scope.covers(needed):
            assert answer.status_code not in (401, 403), scope
            assert answer.status_code < 500, scope
        else:
            expect(answer, "scope-too-small")
            challenge = f'Bearer realm="resight", error="insufficient_scope", scope="{needed}"'
            assert answer.headers["WWW-Authenticate"] == challenge
            assert str(needed) in answer.json()["detail"]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_route_without_a_key_that_counts(guarded: Guarded, method: str, path: str) -> None:
    good = guarded.keys["admin"]
    useless = {
        None: "key-required",
        f"Bearer rsk_{'0' * 64}": "unknown-key",
        f"Bearer {guarded.keys['revoked']}": "unknown-key",
        f"Bearer {good[:-1]}": "unknown-key",
        f"Bearer {good.upper()}": "unknown-key",
        f"Bearer {good} x": "unknown-key",
        f"Basic {good}": "unknown-key",
        good: "unknown-key",
        "Bearer": "unknown-key",
        "": "unknown-key",
    }
    for authorization, slug in useless.items():
        answer = guarded.ask(method, path.format(**FILLED), authorization)
        if ROUTES[method, path] is None:
            assert answer.status_code < 300, authorization
            continue
        expect(answer, slug)
        assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="resight"')
        assert good not in answer.text


def test_what_is_no_key_is_told_without_a_word_of_http(guarded: Guarded) -> None:
    """The console shows it to who mistyped a key."""
    for wrong in ("password", guarded.keys["admin"][:-1]):
        said = guarded.ask("GET", "/model", f"Bearer {wrong}").json()["detail"]
        assert said == "This is no Resight key, which begins with rsk_; copy all of it again."


def test_a_key_counts_in_its_header_only(guarded: Guarded) -> None:
    good = guarded.keys["admin"]
    client = guarded.served.client
    for name in ("key", "api_key", "access_token", "Authorization"):
        expect(client.get("/model", params={name: good}), "key-required")
    expect(client.get("/model", headers={"X-Api-Key": good}), "key-required")
    twice = [("Authorization", f"Bearer {good}"), ("Authorization", f"Bearer {good}")]
    expect(client.get("/model", headers=twice), "unknown-key")
    assert client.get("/model", headers={"Authorization": f"bearer  {good}"}).status_code == 200


@pytest.mark.parametrize(("method", "path"), [one for one in ROUTES if one[0] in ("POST", "PATCH")])
def test_strangers_are_refused_before_a_body_is_awaited(guarded: Guarded, method: str, path: str) -> None:
    host, port = httpx.URL(guarded.served.url).host, httpx.URL(guarded.served.url).port
    head = f"{method} {path.format(**FILLED)} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000\r\n\r\n"
    with socket.create_connection((host, port or 0), timeout=10) as connection:
        connection.sendall(head.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 401 ")


def test_pages_for_strangers_and_addresses_that_are_none(guarded: Guarded) -> None:
    for path in ("/", "/console/status", "/console/static/api.js", "/docs", "/openapi.json"):
        assert guarded.ask("GET", path, None).status_code == 200
    expect(guarded.ask("GET", "/nowhere", None), "key-required")
    expect(guarded.ask("GET", "/nowhere", f"Bearer {guarded.keys['query']}"), "not-found")
    expect(guarded.ask("PUT", "/gallery", None), "key-required")
    expect(guarded.ask("PUT", "/gallery", f"Bearer {guarded.keys['query']}"), "method-not-allowed")
    assert guarded.ask("HEAD", "/model", None).status_code == 401
    assert guarded.ask("HEAD", "/model", f"Bearer {guarded.keys['query']}").status_code == 200


def test_strangers_learn_whether_it_is_ready_and_no_more(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    key = f"Bearer {guarded.keys['query']}"
    assert guarded.ask("GET", "/readyz", None).json() == {"status": "ready", "service": "resight"}
    assert guarded.ask("GET", "/readyz", "Bearer rsk_wrong").json() == {"status": "ready", "service": "resight"}
    assert guarded.ask("GET", "/readyz", key).json()["warnings"] == []
    monkeypatch.setattr(type(guarded.served.runtime.gallery), "trouble", "the reason")
    assert "reasons" not in expect(guarded.ask("GET", "/readyz", None), "not-ready")
    assert expect(guarded.ask("GET", "/readyz", key), "not-ready")["reasons"] == ["the reason"]


def test_keys_come_and_go_while_it_runs_and_a_broken_file_takes_none(guarded: Guarded) -> None:
    late = create_key(guarded.file, "late", KeyScope.QUERY)
    assert guarded.ask("GET", "/model", f"Bearer {late}").status_code == 200
    good = guarded.file.read_bytes()
    guarded.file.write_text("{")
    assert guarded.ask("GET", "/model", f"Bearer {late}").status_code == 200
    (warning,) = guarded.ask("GET", "/readyz", f"Bearer {late}").json()["warnings"]
    assert "keys.json is damaged" in warning
    guarded.file.write_bytes(good)
    revoke_key(guarded.file, "late")
    expect(guarded.ask("GET", "/model", f"Bearer {late}"), "unknown-key")


def test_no_key_is_in_the_log(
    make_settings: Callable[..., Settings], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "keys.json"
    good = create_key(file, "a", KeyScope.QUERY)
    wrong = f"rsk_{'1' * 64}"
    with serve(make_settings(keys_file=file, log_level="debug")) as served:
        for one in (good, wrong):
            header = {"Authorization": f"Bearer {one}"}
            served.client.get("/model", headers=header)
            served.client.get("/model", params={"key": one, one: ""}, headers=header)
            served.client.post("/session", headers=header)
            served.client.delete("/gallery/x", headers=header)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["status"] for line in lines if line["message"] == "request"] == [
        200,
        422,
        200,
        403,
        401,
        401,
        401,
        401,
    ]
    assert not any("rsk_" in json.dumps(line) or good[4:20] in json.dumps(line) for line in lines)


def test_a_service_does_not_start_without_the_keys_it_was_told_of(
    make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    from service.app import running

    with (
        pytest.raises(KeysError, match="resight keys create"),
        running(make_settings(keys_file=tmp_path / "none.json")),
    ):
        pass


def test_without_keys_everybody_may_and_a_key_is_ignored(client: httpx.Client) -> None:
    missing = f"/gallery/{FILLED['crop_id']}"
    for headers in ({}, {"Authorization": "Bearer rsk_wrong"}):
        assert client.get("/model", headers=headers).status_code == 200
        expect(client.delete(missing, headers=headers), "unknown-crop")


def test_routes_know_who_asks(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr("service.api.pictures.count_images", lambda request, _: seen.append(request.state.actor))
    for name in ("query", "admin"):
        key = f"Bearer {guarded.keys[name]}"
        assert guarded.ask("POST", "/embed", key, files=uploads(crop(1))).status_code == 200
    assert seen == ["query", "admin"]


def test_a_route_that_does_not_say_who_may_use_it_keeps_the_app_from_being_built() -> None:
    router = APIRouter()

    async def nothing() -> None: ...

    router.add_api_route("/open", nothing, dependencies=[PUBLIC])
    router.add_api_route("/read", nothing, dependencies=[QUERY])
    assert [needed_scope(route) for route in router.routes] == [None, KeyScope.QUERY]
    for dependencies in ([], [QUERY, PUBLIC]):
        forgetful = APIRouter()
        forgetful.add_api_route("/x", nothing, dependencies=dependencies)
        with pytest.raises(LookupError, match="PUBLIC, QUERY, ENROL and ADMIN"):
            Doorkeeper(FastAPI(), forgetful.routes)


def test_the_table_in_the_documentation_is_the_router() -> None:
    lines = []
    for (method, path), needed in ROUTES.items():
        cells = ["yes" if needed is None else "401"]
        cells += ["yes" if needed is None or scope.covers(needed) else "403" for scope in KeyScope]
        lines.append(f"| `{method} {path}` | {' | '.join(cells)} |")
    table = re.search(r"\| route \| no key \|.*?\n\|[-|]+\n(.*?)\n\n", PAGE, re.DOTALL)
    assert table is not None
    assert table[1] == "\n".join(sorted(lines, key=lambda line: line.split("`")[1].split()[::-1]))


class Clock:
    """A clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_bucket_holds_a_minutes_images_and_fills_evenly() -> None:
    clock = Clock()
    limit = RateLimit(60, clock)
    limit.take("a", 60)
    with pytest.raises(Problem) as refused:
        limit.take("a", 10)
    assert (refused.value.kind.slug, refused.value.headers) == ("rate-limited", {"Retry-After": "10"})
    limit.take("b", 60)
    clock.now += 9.9
    with pytest.raises(Problem):
        limit.take("a", 10)
    clock.now += 0.1
    limit.take("a", 10)
    clock.now += 3600
    limit.take("a", 60)
    with pytest.raises(Problem):
        limit.take("a", 1)


def test_more_images_than_the_bucket_holds_pass_and_are_paid_for() -> None:
    clock = Clock()
    limit = RateLimit(10, clock)
    limit.take("a", 64)
    with pytest.raises(Problem) as refused:
        limit.take("a", 1)
    assert refused.value.headers == {"Retry-After": "330"}  # 54 in debt and 1 more, at 6 s each
    clock.now += 330
    limit.take("a", 1)


def test_each_key_has_its_images_a_minute(make_settings: Callable[..., Settings], tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    first, second = (create_key(file, name, KeyScope.ENROL) for name in ("first", "second"))
    with serve(make_settings(keys_file=file, rate_limit=3)) as served:

        def send(path: str, key: str, *files: bytes) -> httpx.Response:
            return served.client.post(path, files=uploads(*files), headers={"Authorization": f"Bearer {key}"})

        assert send("/gallery", first, crop(1), crop(2)).status_code == 201
        assert send("/gallery", first, crop(1), crop(2)).status_code == 200  # known: nothing is embedded
        refused = send("/query", first, crop(1), crop(2))
        expect(refused, "rate-limited")
        assert 1 <= int(refused.headers["Retry-After"]) <= 20
        expect(send("/gallery", first, crop(3), crop(4)), "rate-limited")
        assert send("/embed", first, crop(1)).status_code == 200
        assert send("/embed", second, crop(1), crop(2), crop(3)).status_code == 200
        assert served.runtime.gallery.crop_count == 2
