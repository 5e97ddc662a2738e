"""Where a service can be: its URL, looked at before anything is sent."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

import httpx

DEFAULT_URL = "http://127.0.0.1:8000"
LONGEST_LABEL = 63  # of a host's name, between two dots


def is_loopback(host: str) -> bool:
    """Whether the host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def service_url(text: str) -> str:
    """The URL without a slash at its end. Raises ValueError when no service can be there."""
    try:
        url = httpx.URL(text)
        urlsplit(text)  # looks at brackets, which httpx does not
    except (httpx.InvalidURL, ValueError) as error:
        raise ValueError(f"{text!r} is no URL: {error}") from error
    if url.port is not None and not 0 < url.port < 2**16:
        raise ValueError(f"{text!r} is no URL: a port is a number from 1 to 65535")
    if any(len(label) > LONGEST_LABEL for label in url.host.split(".")):
        raise ValueError(f"{text!r} is no URL: its host's name is too long")
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"{text!r} is no URL of a service; one looks like {DEFAULT_URL}")
    return text.rstrip("/")
