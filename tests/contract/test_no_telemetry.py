"""ONNX Runtime neither notes nor sends anything about who uses it, in either half."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SESSION = """
import sys, {package}, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
print(session.get_inputs()[0].name)
"""


@pytest.mark.parametrize("package", ["service", "training"])
def test_a_session_leaves_nothing_at_home(package: str, model_path: Path, tmp_path: Path) -> None:
    kept_out = {"ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"}
    environment = {name: value for name, value in os.environ.items() if name not in kept_out}
    ran = subprocess.run(
        [sys.executable, "-c", SESSION.format(package=package), str(model_path)],
        env={**environment, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == "crops"
    assert not list(tmp_path.iterdir())
