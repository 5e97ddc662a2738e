from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.interrupted import draw, enrol_interrupted, require_every_crop_once
from tests.serving import Served


@pytest.mark.slow
def test_enrolling_interrupted_five_times_ends_with_every_crop_once(service: Served, tmp_path: Path) -> None:
    draw(tmp_path / "crops", 2000)
    found = enrol_interrupted(tmp_path / "crops", service.url, times=5)
    assert len(found.acknowledged) == 5
    assert "0 updated, 0 failed" in found.summary
    require_every_crop_once(tmp_path / "crops", service.url)
