"""The value of a session's cookie: who may write one, and when it ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.keys import Key, KeyRing, KeyScope, create_key, revoke_key
from service.sessions import SESSION_SECONDS, Sessions


class Clock:
    """A clock that a test moves."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def keys(tmp_path: Path) -> KeyRing:
    file = tmp_path / "keys.json"
    create_key(file, "desk.1:a", KeyScope.ENROL)
    create_key(file, "other", KeyScope.ADMIN)
    return KeyRing(file)


def key_of(keys: KeyRing, name: str = "desk.1:a") -> Key:
    key = keys.named(name)
    assert key is not None
    return key


def test_a_session_lasts_its_time(keys: KeyRing) -> None:
    clock = Clock()
    sessions = Sessions(clock)
    cookie = sessions.begin(key_of(keys))
    assert sessions.holder(cookie, keys) == key_of(keys)
    clock.now += SESSION_SECONDS - 1
    assert sessions.holder(cookie, keys) == key_of(keys)
    clock.now += 1
    assert sessions.holder(cookie, keys) is None


def test_a_session_that_was_ended_is_over_and_others_go_on(keys: KeyRing) -> None:
    clock = Clock()
    sessions = Sessions(clock)
    first, second = sessions.begin(key_of(keys)), sessions.begin(key_of(keys, "other"))
    sessions.end(first, keys)
    sessions.end(first, keys)
    assert sessions.holder(first, keys) is None
    assert sessions.holder(second, keys) == key_of(keys, "other")


def test_a_session_ends_with_its_key_even_if_another_takes_its_name(keys: KeyRing, tmp_path: Path) -> None:
    sessions = Sessions()
    cookie = sessions.begin(key_of(keys))
    revoke_key(tmp_path / "keys.json", "desk.1:a")
    assert sessions.holder(cookie, keys) is None
    create_key(tmp_path / "keys.json", "desk.1:a", KeyScope.ADMIN)
    assert sessions.holder(cookie, keys) is None


def test_nobody_else_can_write_one(keys: KeyRing) -> None:
    sessions = Sessions()
    cookie = sessions.begin(key_of(keys))
    expires, _, rest = cookie.partition(".")
    name, _, signature = rest.rpartition(".")
    forged = [
        f"{int(expires) + 1}.{name}.{signature}",
        f"{expires}.other.{signature}",
        f"{expires}.{name}.{'0' * 64}",
        f"{expires}.{name}.",
        f"{expires}.{name}.ä",
        f"-{expires}.{name}.{signature}",
        f"{'9' * 5000}.{name}.{signature}",
        f"²{expires}.{name}.{signature}",
        "",
        ".",
        "...",
        cookie + "0",
    ]
    for one in forged:
        assert sessions.holder(one, keys) is None, one
        sessions.end(one, keys)
    assert sessions.holder(cookie, keys) is not None
    assert Sessions().holder(cookie, keys) is None  # the service was started again
