"""What a run leaves to read: run.json (settings, environments, data), log.jsonl (a line an epoch), steps.jsonl
(a line a step), results.json."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kornia
import numpy as np
import torch

from training.data.dataset import UNKNOWN_CAMERA, Dataset, Sample
from training.loop import files

LOG, STEPS, RUN, RESULTS = "log.jsonl", "steps.jsonl", "run.json", "results.json"


def environment(device: torch.device, processes: int = 1) -> dict[str, Any]:
    """One start of a run: the versions and the device that its figures depend on."""
    chosen = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "revision": source_revision(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "kornia": str(kornia.__version__),
        "device": f"{device}: {chosen}",
        "processes": processes,
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
    """Counts of every part, as the paper's Table 2 has them (people only), and what identifies the pictures.

    `sha256` is over names, byte lengths, identities and cameras of the training part, `test_sha256` over those of
    query and gallery: no picture is read for them. A training identity counts by its place among the others,
    because what it is called decides nothing that is learnt.
    """
    places = {identity: n for n, identity in enumerate(sorted({sample.identity for sample in data.train}))}
    train = _sha256(("train", replace(sample, identity=places[sample.identity])) for sample in data.train)
    test = _sha256(
        (part, sample) for part, samples in (("query", data.query), ("gallery", data.gallery)) for sample in samples
    )
    parts = {
        part: {
            "identities": len({sample.identity for sample in samples if sample.identity > 0}),
            "images": len(samples),
            "cameras": len({sample.camera for sample in samples} - {UNKNOWN_CAMERA}),
        }
        for part, samples in (("train", data.train), ("query", data.query), ("gallery", data.gallery))
    }
    return {"name": data.name, **parts, "sha256": train, "test_sha256": test}


def _sha256(samples: Iterable[tuple[str, Sample]]) -> str:
    """Of the samples of named parts, in whatever order they come."""
    digest = hashlib.sha256()
    for line in sorted(f"{part}\0{s.name}\0{s.size}\0{s.identity}\0{s.camera}\n" for part, s in samples):
        digest.update(line.encode())
    return digest.hexdigest()


def append(folder: Path, record: dict[str, Any]) -> None:
    """Add one line to log.jsonl."""
    files.append(folder / LOG, json.dumps(record) + "\n")


def amend(folder: Path, figures: Mapping[str, Any]) -> None:
    """Add figures to the last line of log.jsonl, the file whole or as it was."""
    lines = (folder / LOG).read_text(encoding="utf-8").splitlines()
    last = json.dumps({**json.loads(lines[-1]), **figures})
    write_text(folder / LOG, "".join(f"{line}\n" for line in [*lines[:-1], last]))


def lacks(folder: Path, epoch: int, name: str) -> bool:
    """Whether the last line of log.jsonl is that of `epoch` (from 1) and has no figure of this name."""
    path = folder / LOG
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    last = json.loads(lines[-1]) if lines else {}
    return last.get("epoch") == epoch and name not in last


def append_steps(folder: Path, epoch: int, first: int, losses: Sequence[dict[str, float]]) -> None:
    """Add the steps of an epoch (from 1) to steps.jsonl; `first` is the number of its first step in the run."""
    lines = [json.dumps({"epoch": epoch, "step": step, **parts}) for step, parts in enumerate(losses, first)]
    files.append(folder / STEPS, "".join(f"{line}\n" for line in lines))


def truncate(folder: Path, epochs: int) -> int:
    """Drop what log.jsonl and steps.jsonl tell of epochs that will be trained again, and a last line that was torn
    when the run was killed; the number of steps in the epochs that are left."""
    kept, _ = (_truncate(folder / name, epochs) for name in (LOG, STEPS))
    return sum(record.get("batches", 0) for record in kept)


def _truncate(path: Path, epochs: int) -> list[dict[str, Any]]:
    """The records that are left."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    kept = [record for record in whole_records(text) if record["epoch"] <= epochs]
    write_text(path, "".join(f"{json.dumps(record)}\n" for record in kept))
    return kept


def whole_records(text: str) -> Iterator[dict[str, Any]]:
    """The lines of log.jsonl or steps.jsonl up to the first that is torn or damaged."""
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            return
        if not isinstance(record, dict) or type(record.get("epoch")) is not int:
            return
        if type(record.get("batches", 0)) is not int:
            return
        yield record


def write_json(path: Path, record: Any) -> None:
    """Write JSON, whole or not at all."""
    write_text(path, json.dumps(record, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Replace a file by `text`, whole or not at all."""
    files.write_whole(path, lambda file: file.write(text.encode()))
