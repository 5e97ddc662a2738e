"""The runs behind the tables: which there are, which are finished, and one of them from training to its figures."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from training.config import Config, ConfigError
from training.data.dataset import Dataset
from training.figures.runs import ABLATION, read_lines, read_measured
from training.figures.tables import Ended, markdown, record, runs_markdown
from training.figures.variants import MEASURES, OURS, Table, Variant
from training.loop import runlog
from training.loop.distillation import TeacherFile
from training.loop.trainer import Trainer
from training.retrieval.protocol import evaluate, file_sha256
from training.retrieval.torch_model import TorchModel

MEASUREMENTS = 10  # of a run on its way, unless eval_every says otherwise
MARKDOWN, JSON = "tables.md", "tables.json"


@dataclass(frozen=True)
class Job:
    """One run: a variant with a seed, in a folder of its own."""

    variant: Variant
    config: Config
    folder: Path

    @property
    def title(self) -> str:
        return f"{self.variant.title}, seed {self.config.seed}"


@dataclass(frozen=True)
class Ablation:
    """The runs over one base: its settings, data and folder, and what its backbone starts from."""

    base: Config
    data: Dataset
    folder: Path
    weights: str = "none"
    teacher: TeacherFile | None = None

    def jobs(self, tables: Sequence[Table], seeds: int) -> list[Job]:
        """The distinct runs of the tables, seed by seed, so that every row has its first figure soon."""
        variants = {row.variant.key: row.variant for table in tables for row in table.rows}
        return [self._job(variant, self.base.seed + n) for n in range(seeds) for variant in variants.values()]

    def finished(self, job: Job) -> dict[str, Any] | None:
        """What was measured on a job that is finished, else None.

        Raises:
            ValueError: the folder's run is another one, and the message names the first difference; or its figures are
                damaged.
        """
        path = job.folder / ABLATION
        if not path.is_file():
            return None
        found = read_measured(path)
        was, now = _with_defaults(path, found.get("asked")), self._asked(job)
        for name, value in now.items():
            if was.get(name) != value:
                raise ValueError(
                    f"{path} was measured with {name}={was.get(name)!r}, not {value!r}: "
                    "give the same, or another --runs folder"
                )
        return found

    def run(self, job: Job, device: torch.device, console: Console | None) -> None:
        """Train a job, or what is left of it, measure it on the test part, and write that as ablation.json.

        Raises:
            ValueError, NotFinite: as `Trainer.train`.
        """
        began = time.monotonic()
        trainer = Trainer(job.config, self.data, job.folder, device, console)
        checkpoint = trainer.train(self.weights, self.teacher)
        # The trainer has measured after the last epoch, unless that epoch was complete before.
        metrics = trainer.measured or evaluate(TorchModel(checkpoint, device), self.data, console=console).metrics
        measured = {
            "variant": job.variant.key,
            "data": self.data.name,
            "asked": self._asked(job),
            **metrics.figures(),
            "cmc": list(metrics.cmc),
            "seconds": round(time.monotonic() - began, 1),
        }
        runlog.write_json(job.folder / ABLATION, measured)

    def write_tables(self, tables: Sequence[Table], jobs: Sequence[Job]) -> str:
        """Write tables.md and tables.json of what is finished, and return the Markdown."""
        results: dict[str, list[dict[str, float]]] = {}
        ended = []
        for job in jobs:
            if (found := self.finished(job)) is not None:
                results.setdefault(job.variant.key, []).append({name: found[name] for name in MEASURES})
                ended.append(Ended(job.title, found, read_lines(job.folder / runlog.LOG)))
        text = "\n".join([*(markdown(table, results, self.data.name) for table in tables), runs_markdown(ended)])
        runlog.write_text(self.folder / MARKDOWN, text)
        runlog.write_json(self.folder / JSON, [record(table, results, self.data.name) for table in tables])
        return text

    def _job(self, variant: Variant, seed: int) -> Job:
        config = replace(variant.apply(self.base), seed=seed)
        return Job(variant, config, self.folder / f"{variant.key}-seed{seed}")

    def _asked(self, job: Job) -> dict[str, Any]:
        """What makes a run this run, flat and as JSON gives it back."""
        data = runlog.data_fingerprint(self.data)
        return {
            **_plain(job.config),
            "data": data["sha256"],
            "test data": data["test_sha256"],
            "weights": _content(self.weights),
            "teacher": _content(str(self.teacher.path)) if self.teacher else "none",
            "teacher layout": self.teacher.layout if self.teacher else None,
        }


def base_config(config: Config) -> Config:
    """What the variants are made of: `config`, measured ten times on its way unless it says how often.

    Raises:
        ConfigError: it sets what the tables vary.
    """
    for name, value in OURS.settings.items():
        if getattr(config, name) != value:
            raise ConfigError(f"{name} is what the tables vary: leave {name}={getattr(config, name)} out")
    return replace(config, eval_every=config.eval_every or max(1, config.epochs // MEASUREMENTS))


def _plain(config: Config) -> dict[str, Any]:
    """Settings as JSON gives them back."""
    plain: dict[str, Any] = json.loads(json.dumps(config.to_dict()))
    return plain


def _with_defaults(path: Path, asked: Any) -> dict[str, Any]:
    """What a run was asked for, of an earlier version too: a setting that did not exist then has its default.

    Raises:
        ValueError: it has settings that this version has not.
    """
    told = asked if isinstance(asked, dict) else {}
    names = {field.name for field in fields(Config)}
    try:
        config = Config.from_dict({name: value for name, value in told.items() if name in names})
    except ConfigError as error:
        raise ValueError(f"{path} was measured with settings that this version does not take: {error}") from error
    return {**told, **_plain(config)}


def _content(name: str) -> str:
    """A file by its content, wherever it lies; a word such as "imagenet" by itself."""
    path = Path(name)
    return file_sha256(path) if path.is_file() else name
