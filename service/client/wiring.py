"""What httpx is told about a service: where it is, with which key, through which proxies, for how long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from service.client.addresses import is_loopback, service_url
from service.client.credentials import api_key

CONNECT_TIMEOUT = 5.0


@dataclass(frozen=True)
class Wiring:
    """`arguments` are those of httpx's blocking and of its async client alike."""

    base_url: str
    arguments: dict[str, Any]


def wiring(base_url: str, key: str | None, timeout: float) -> Wiring:
    """How to reach the service at `base_url`. Raises ValueError where none can be, or with no such key."""
    url, found = service_url(base_url), api_key(key)
    arguments: dict[str, Any] = {
        "base_url": url,
        "headers": {} if found is None else {"Authorization": f"Bearer {found}"},
        "timeout": httpx.Timeout(timeout, connect=min(timeout, CONNECT_TIMEOUT)),
        # Proxies come from the environment, and none leads back to this machine.
        "trust_env": not is_loopback(httpx.URL(url).host),
    }
    return Wiring(url, arguments)
