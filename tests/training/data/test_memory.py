from __future__ import annotations

from pathlib import Path

import pytest

from training.data.memory import available_bytes


@pytest.fixture
def meminfo(tmp_path: Path) -> Path:
    path = tmp_path / "meminfo"
    path.write_text("MemTotal:       2000 kB\nMemFree:         100 kB\nMemAvailable:   1000 kB\n")
    return path


@pytest.mark.parametrize(
    ("limit", "used", "files", "expected"),
    [
        ("max", 0, 0, 1_024_000),
        (700_000, 200_000, 0, 500_000),
        (700_000, 200_000, 150_000, 650_000),
        (9_000_000, 0, 0, 1_024_000),
        (700_000, 700_001, 0, 0),
    ],
)
def test_the_containers_limit_counts(
    tmp_path: Path, meminfo: Path, limit: int | str, used: int, files: int, expected: int
) -> None:
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text(f"{used}\n")
    (tmp_path / "memory.stat").write_text(f"anon 5\nactive_file 7\ninactive_file {files}\n")
    assert available_bytes(meminfo, tmp_path) == expected


def test_without_a_container_it_is_the_machine(tmp_path: Path, meminfo: Path) -> None:
    assert available_bytes(meminfo, tmp_path / "none") == 1_024_000


def test_elsewhere_it_is_half_of_the_memory(tmp_path: Path) -> None:
    assert available_bytes(tmp_path / "none", tmp_path) > 0
    assert available_bytes() > 0
