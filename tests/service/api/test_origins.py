"""A page of another site reaches nothing through its visitor's browser; programs and own pages reach everything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.settings import Settings
from tests.drawn_crops import crop, uploads
from tests.raw_http import answer_of, opened
from tests.service.api.canonical_error import expect
from tests.serving import Served, serve


@pytest.fixture(scope="module")
def served(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One service for all of this module."""
    folder = tmp_path_factory.mktemp("data")
    with serve(Settings(model=model_path, device="cpu", gallery=f"sqlite:///{folder}", threads=2)) as service:
        yield service


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2:1", "localhost", "LOCALHOST:8000", "[::1]", "[::1]:8000"])
def test_this_machine_has_many_names(served: Served, host: str) -> None:
    assert served.client.get("/livez", headers={"Host": host}).status_code == 200


REBOUND = [
    "evil.example",
    "evil.example:8000",
    "192.168.0.7",
    "0.0.0.0",
    "127.0.0.1.evil.example",
    "[",
    "",
    "localhost@x",
]


@pytest.mark.parametrize("host", REBOUND)
@pytest.mark.parametrize(("method", "path"), [("GET", "/gallery"), ("GET", "/livez"), ("POST", "/embed")])
def test_another_name_for_a_loopback_service_is_refused(served: Served, method: str, path: str, host: str) -> None:
    expect(served.client.request(method, path, headers={"Host": host}), "forbidden-origin")


FOREIGN = {
    "another site": {"Origin": "https://evil.example"},
    "a page without origin": {"Origin": "null"},
    "a name that contains ours": {"Origin": "http://127.0.0.1.evil.example"},
    "what the browser calls cross-site": {"Sec-Fetch-Site": "cross-site"},
    "no URL": {"Origin": "http://["},
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_page_of_another_site_changes_nothing(served: Served, name: str) -> None:
    expect(served.client.post("/gallery", files=uploads(crop(1)), headers=FOREIGN[name]), "forbidden-origin")
    missing = "/gallery/00000000-0000-0000-0000-000000000000"
    expect(served.client.delete(missing, headers=FOREIGN[name]), "forbidden-origin")
    assert served.runtime.gallery.crop_count == 0
    assert served.client.get("/gallery", headers=FOREIGN[name]).status_code == 200  # not readable for the page


def test_own_pages_and_programs_may(served: Served) -> None:
    own: list[dict[str, str]] = [
        {},
        {"Origin": served.url, "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
    ]
    for headers in own:
        assert served.client.post("/embed", files=uploads(crop(1)), headers=headers).status_code == 200


def test_a_service_for_others_goes_by_its_name_and_still_refuses_foreign_pages(
    make_settings: Callable[..., Settings],
) -> None:
    with serve(make_settings(host="0.0.0.0", allow_anonymous=True)) as served:
        named = {"Host": "resight.example"}
        assert served.client.get("/livez", headers=named).status_code == 200
        foreign = {**named, "Origin": "https://evil.example"}
        expect(served.client.post("/embed", files=uploads(crop(1)), headers=foreign), "forbidden-origin")
        own = {**named, "Origin": "https://resight.example:8443"}
        assert served.client.post("/embed", files=uploads(crop(1)), headers=own).status_code == 200


@pytest.fixture(scope="module")
def named(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One in a container, published for this machine only: it has no keys and does not listen on loopback."""
    settings = Settings(
        model=model_path,
        device="cpu",
        gallery=f"sqlite:///{tmp_path_factory.mktemp('data')}",
        threads=2,
        host="0.0.0.0",
        allow_anonymous=True,
        allowed_hosts="Resight, reid.example.org",
    )
    with serve(settings) as service:
        yield service


OWN = ["resight:8000", "RESIGHT", "reid.example.org", "reid.example.org.:80", "localhost:9000", "localhost."]
OWN += ["127.0.0.1", "[::1]:8000", "172.18.0.3:8000"]


@pytest.mark.parametrize("host", OWN)
def test_a_service_answers_to_the_names_that_it_was_given_and_to_addresses(named: Served, host: str) -> None:
    assert named.client.get("/gallery", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "resight.evil.example", "x.reid.example.org", "[", ""]
)
@pytest.mark.parametrize(("method", "path"), [("GET", "/gallery"), ("POST", "/erasures")])
def test_another_name_than_those_is_refused(named: Served, method: str, path: str, host: str) -> None:
    own_page = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
    answer = expect(named.client.request(method, path, headers=own_page), "forbidden-origin")
    assert "RESIGHT_ALLOWED_HOSTS" in answer["detail"]


def test_a_proxy_that_asks_without_a_host_is_answered(named: Served) -> None:
    with opened(named.url) as connection:
        connection.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
        assert answer_of(connection)[0] == 200


def test_a_loopback_service_can_be_given_a_name(make_settings: Callable[..., Settings]) -> None:
    with serve(make_settings(allowed_hosts="reid.example.org")) as served:
        assert served.client.get("/livez", headers={"Host": "reid.example.org"}).status_code == 200
        assert served.client.get("/livez").status_code == 200
        expect(served.client.get("/livez", headers={"Host": "evil.example"}), "forbidden-origin")
