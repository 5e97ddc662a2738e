"""Copies whose footer is whole but says something strange: they are of no use, and no reason not to start."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import pytest

from service.gallery import snapshot
from service.gallery.folder import SNAPSHOT_NAME
from service.gallery.sections import MOST_FOOTER, TAIL, CopyUnusable, SectionReader
from tests.service.gallery.cases import open_gallery

ORIGIN = {"model_sha256": "a" * 64, "dim": 16, "sequence": 0, "token": "t"}
CODES = {"length": 0, "crc32": 0}
STRANGE = {
    "a list": b"[]",
    "no JSON": b"{",
    "no UTF-8": b"\xff",
    "deep": b"[" * 100_000,
    "without sections": b"{}",
    "a list of sections": json.dumps({"sections": [], "origin": ORIGIN}).encode(),
    "a number for a section": json.dumps({"sections": {"codes": 7}}).encode(),
    "a length that is text": json.dumps({"sections": {"codes": {**CODES, "length": "0"}}}).encode(),
    "a negative length": json.dumps(
        {"sections": {"codes": {**CODES, "length": -1}, "b": {**CODES, "length": 1}}}
    ).encode(),
    "a broken length": json.dumps({"sections": {"codes": {**CODES, "length": 0.0}}}).encode(),
}
STRANGE_SNAPSHOTS: dict[str, dict[str, object]] = {
    "no origin": {"count": 0},
    "a list as origin": {"origin": [1], "count": 0},
    "another origin": {"origin": {"a": 1}, "count": 0},
    "a list as count": {"origin": ORIGIN, "count": [0]},
    "text as dim": {"origin": {**ORIGIN, "dim": "x" * 100}, "count": 0},
    "no vectors": {"origin": ORIGIN, "count": 0},
}


def write(path: Path, footer: bytes, magic: bytes = snapshot.MAGIC) -> None:
    path.write_bytes(footer + TAIL.pack(len(footer), zlib.crc32(footer), magic))


@pytest.mark.parametrize("kind", STRANGE)
def test_a_strange_footer_is_of_no_use(tmp_path: Path, kind: str) -> None:
    write(tmp_path / "copy", STRANGE[kind], b"RSGTTEST")
    with (tmp_path / "copy").open("rb") as file, pytest.raises(CopyUnusable, match="none of a copy"):
        SectionReader(file, b"RSGTTEST")


def test_a_huge_footer_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "copy").open("wb") as file:
        file.truncate(1 << 40)
        file.seek(0, 2)
        file.write(TAIL.pack(MOST_FOOTER + 1, 0, b"RSGTTEST"))
    with (tmp_path / "copy").open("rb") as file, pytest.raises(CopyUnusable, match="damaged"):
        SectionReader(file, b"RSGTTEST")


@pytest.mark.parametrize("kind", [*STRANGE, *STRANGE_SNAPSHOTS])
def test_a_gallery_starts_beside_a_strange_snapshot(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    about = STRANGE_SNAPSHOTS.get(kind)
    write(tmp_path / SNAPSHOT_NAME, STRANGE[kind] if about is None else json.dumps({**about, "sections": {}}).encode())
    with open_gallery(tmp_path) as gallery:
        assert "is of no use" in caplog.text
        assert gallery.crop_count == 0


def test_a_snapshot_says_in_words_what_it_lacks(tmp_path: Path) -> None:
    write(tmp_path / "copy", json.dumps({"origin": ORIGIN, "count": 0, "sections": {}}).encode())
    with snapshot.reading(tmp_path / "copy") as found, pytest.raises(CopyUnusable, match="no vectors"):
        next(found.vectors())
