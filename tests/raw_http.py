"""HTTP as a socket sees it, for requests that no client library sends."""

from __future__ import annotations

import json
import socket
from typing import Any, NoReturn
from urllib.parse import urlsplit

PART = b"--b\r\nContent-Disposition: form-data; name=images; filename=a\r\n\r\n"  # begins a form of one picture


def opened(url: str) -> socket.socket:
    """A connection to the service at `url`."""
    place = urlsplit(url)
    return socket.create_connection((place.hostname or "", place.port or 80), timeout=30)


def head(path: str, length: int, expect: str | None = None) -> bytes:
    """The head of a POST of a form of `length` bytes."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: multipart/form-data; boundary=b"]
    lines += [f"Content-Length: {length}"] + ([f"Expect: {expect}"] if expect else [])
    return "\r\n".join([*lines, "", ""]).encode()


def answer_of(client: socket.socket) -> tuple[int, dict[str, str], Any]:
    """Status, headers (in lower case) and JSON of the answer, read to its announced end."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += _some(client)
    top, _, body = received.partition(b"\r\n\r\n")
    status, *lines = top.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    while len(body) < int(headers["content-length"]):
        body += _some(client)
    return int(status.split()[1]), headers, json.loads(body)


def send_for_ever(client: socket.socket, data: bytes) -> NoReturn:
    """Sends until the other side ends the connection, and raises ConnectionError then."""
    while True:
        client.sendall(data)


def ended(client: socket.socket) -> bool:
    """Waits for the other side to say or end something; whether it ended the connection."""
    try:
        return client.recv(1) == b""
    except ConnectionError:
        return True


def _some(client: socket.socket) -> bytes:
    data = client.recv(65536)
    assert data, "the connection ended before its answer"
    return data
