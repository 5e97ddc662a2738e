"""What a run leaves to read: run.json (settings, environments, data), log.jsonl (a line an epoch), results.json."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kornia
import numpy as np
import torch

from training.data.dataset import Dataset

LOG, RUN, RESULTS = "log.jsonl", "run.json", "results.json"


def environment(device: torch.device) -> dict[str, Any]:
    """One start of a run: the versions and the device that its figures depend on."""
    chosen = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "revision": source_revision(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "kornia": str(kornia.__version__),
        "device": f"{device}: {chosen}",
        "threads": torch.get_num_threads(),
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
    """Counts of every part, as the paper's Table 2 has them (people only), and what identifies the training part.

    `sha256` is over the names and byte lengths of the training pictures, sorted: no picture is read for it.
    """
    digest = hashlib.sha256()
    for name, size in sorted((sample.name, sample.size) for sample in data.train):
        digest.update(f"{name}\0{size}\n".encode())
    parts = {
        part: {
            "identities": len({sample.identity for sample in samples if sample.identity > 0}),
            "images": len(samples),
            "cameras": len({sample.camera for sample in samples}),
        }
        for part, samples in (("train", data.train), ("query", data.query), ("gallery", data.gallery))
    }
    return {"name": data.name, **parts, "sha256": digest.hexdigest()}


def append(folder: Path, record: dict[str, Any]) -> None:
    """Add one line to log.jsonl."""
    with (folder / LOG).open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def truncate(folder: Path, epochs: int) -> None:
    """Drop the lines of epochs that will be trained again, and a last line that was torn when the run was killed."""
    path = folder / LOG
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            done = int(json.loads(line)["epoch"])
        except (ValueError, KeyError, TypeError):
            break
        if done <= epochs:
            kept.append(line + "\n")
    write_whole(path, "".join(kept))


def write_json(path: Path, record: Any) -> None:
    """Write JSON, whole or not at all."""
    write_whole(path, json.dumps(record, indent=2) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Replace a file by another one that is complete and on disk."""
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
