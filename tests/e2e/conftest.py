"""A smoke run that the end-to-end tests share: it takes longer than all of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def train(folder: Path, *options: str) -> Path:
    """Trains, exports and evaluates by the command that a user types; what it printed is kept beside."""
    command = [sys.executable, "training/train.py", "--preset", "smoke", "--run", str(folder), "--device", "cpu"]
    done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (folder / "printed.txt").write_text(done.stdout)
    return folder


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a smoke run: trained, exported, evaluated."""
    return train(tmp_path_factory.mktemp("smoke"))
