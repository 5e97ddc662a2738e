"""What a command prints where nobody takes it: a sentence, and never a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FULL = Path("/dev/full")


@pytest.mark.parametrize("more", [["-m", "training.data"], ["training/evaluate.py", "MODEL", "--json", "--data"]])
def test_a_full_disk_is_a_sentence(more: list[str], drawn: Path, own_file: Path) -> None:
    if not FULL.exists():
        pytest.skip("this system has no /dev/full")
    words = [str(own_file) if word == "MODEL" else word for word in more]
    with FULL.open("w") as full:
        done = subprocess.run(
            [sys.executable, *words, str(drawn)], stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False
        )
    assert done.returncode == 2
    assert done.stderr.endswith("error: what was found could not be printed (No space left on device)\n")
    assert "Traceback" not in done.stderr


def test_a_reader_that_is_gone_is_a_sentence(drawn: Path, own_file: Path) -> None:
    command = [sys.executable, "training/evaluate.py", str(own_file), "--json", "--data", str(drawn)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        told = process.stderr.read()
    assert process.returncode == 2
    assert told.endswith("error: what was found could not be printed (Broken pipe)\n")
