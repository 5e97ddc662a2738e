"""The commands where a package is missing, or Ctrl-C comes early: a sentence each, and never a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from training.packages import needed, stop_on_sigterm

ROOT = Path(__file__).parents[2]


def run(command: str, modules: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of its own, with what lies in `modules` found before what is installed."""
    environment = {**os.environ, "PYTHONPATH": str(modules)}
    return subprocess.run(
        [sys.executable, ROOT / "training" / f"{command}.py", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


@pytest.mark.parametrize("command", ["train", "export", "ablate", "visualize"])
def test_without_torch_the_command_says_what_to_install(command: str, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError(\"No module named 'torch'\", name='torch')")
    done = run(command, tmp_path, "--help")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: a package is not installed (No module named 'torch'): "
        "pip install -c constraints.txt -e '.[cpu,train]' (or gpu for cpu; docs/training.md)\n"
    )


def test_a_checkpoint_is_not_evaluated_without_torch(tmp_path: Path, drawn: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError(\"No module named 'torch'\", name='torch')")
    (tmp_path / "checkpoint.pt").write_bytes(b"weights")
    done = run("evaluate", tmp_path, str(tmp_path / "checkpoint.pt"), "--data", str(drawn))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: a package is not installed (No module named 'torch'): pip")
    assert "Traceback" not in done.stderr


def test_ctrl_c_while_importing_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise KeyboardInterrupt")
    done = run("train", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped\n")


def test_a_fault_of_our_own_keeps_its_traceback() -> None:
    with pytest.raises(ModuleNotFoundError), needed("__main__"):
        raise ModuleNotFoundError("No module named 'training.nowhere'", name="training.nowhere")


def test_who_imports_a_command_decides_itself() -> None:
    with pytest.raises(ImportError), needed("training.export"):
        raise ImportError("No module named 'onnx'", name="onnx")


def test_sigterm_is_ctrl_c_where_that_is_asked_for() -> None:
    earlier = signal.getsignal(signal.SIGTERM)
    try:
        stop_on_sigterm()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, earlier)
