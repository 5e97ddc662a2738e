"""What a run leaves to read: run.json (settings, environment, data), log.jsonl (a line an epoch)."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from training.data.dataset import Dataset


def environment() -> dict[str, str]:
    """Versions and device that a figure of this run depends on."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "cpu"
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "device": device,
        "revision": source_revision(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def source_revision() -> str:
    """The commit of the checkout that this code runs from, with a + when it was changed, or "unknown"."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True)
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True)
    except OSError:
        return "unknown"
    if commit.returncode != 0:
        return "unknown"
    return commit.stdout.strip() + ("+" if changed.stdout.strip() else "")


def data_fingerprint(data: Dataset) -> dict[str, Any]:
    """Counts of every part, as the paper's Table 2 has them."""
    return {"name": data.name} | {
        part: {
            "identities": len({sample.identity for sample in samples}),
            "images": len(samples),
            "cameras": len({sample.camera for sample in samples}),
        }
        for part, samples in (("train", data.train), ("query", data.query), ("gallery", data.gallery))
    }


def append(folder: Path, record: dict[str, Any]) -> None:
    """Add one line to log.jsonl."""
    with (folder / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def truncate(folder: Path, epochs: int) -> None:
    """Drop the lines of epochs that a resumed run will train again."""
    path = folder / "log.jsonl"
    if path.is_file():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept: Sequence[str] = [line for line in lines if json.loads(line)["epoch"] <= epochs]
        path.write_text("".join(kept), encoding="utf-8")


def write_run(folder: Path, record: dict[str, Any]) -> None:
    (folder / "run.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
