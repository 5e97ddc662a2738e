from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.settings import Settings
from tests.drawn_crops import crop
from tests.serving import Served, serve


@pytest.fixture
def service(make_settings: Callable[..., Settings]) -> Iterator[Served]:
    """A running service whose log does not fill the stderr that it shares with the command under test."""
    with serve(make_settings(log_level="error")) as served:
        yield served


@pytest.fixture
def market(tmp_path: Path) -> Path:
    """Three people under two cameras, a distractor, a junk crop and something else, in Market-1501 names."""
    folder = tmp_path / "bounding_box_test"
    folder.mkdir()
    for number in (1, 2, 3):
        for view in (0, 1):
            (folder / f"000{number}_c{view + 1}s1_00000{view}_00.jpg").write_bytes(crop(9 * number, view))
    (folder / "0000_c1s1_000001_00.jpg").write_bytes(crop(40))
    (folder / "-1_c1s1_000001_00.jpg").write_bytes(crop(41))
    (folder / "Thumbs.db").write_bytes(b"x")
    return folder
