"""Makes tar archives, honest and hostile ones, and sends them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import httpx

TAR = {"Content-Type": "application/x-tar"}
END = bytes(1024)


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, **fields: Any) -> bytes:
    """One member's blocks, with a size that `content` need not have."""
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    pax = bool(info.pax_headers)
    return (
        info.tobuf(tarfile.PAX_FORMAT if pax else tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
        + content
        + bytes(-len(content) % 512)
    )


def archive(files: Mapping[str, bytes]) -> bytes:
    """A whole archive of these files, in their order, as `tarfile` writes it."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def manifest(*lines: Mapping[str, object]) -> dict[str, bytes]:
    """A manifest as the file that must come first."""
    return {"manifest.jsonl": b"".join(json.dumps(line).encode() + b"\n" for line in lines)}


def in_pieces(content: bytes, size: int) -> Iterator[bytes]:
    """The content as a body of undeclared length."""
    for start in range(0, len(content), size):
        yield content[start : start + size]


def send(client: httpx.Client, content: bytes | Iterable[bytes]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Enrols an archive; the members' lines and the last one."""
    answer = client.post("/gallery", content=content, headers=TAR)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    *lines, end = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["index"] for line in lines] == list(range(len(lines)))
    assert sum(end["counts"].values()) == len(lines)
    return lines, end
