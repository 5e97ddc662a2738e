"""The runs that figures are made from: what each was, what it logged, which belong together."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from training.config import Config
from training.figures.variants import MEASURES, VARIANTS, Variant, variant_of
from training.loop.checkpoint import LATEST, content_of
from training.loop.runlog import LOG, RUN, STEPS
from training.network.stored import read_checkpoint

ABLATION = "ablation.json"  # what was measured on a finished run of an ablation


@dataclass(frozen=True)
class Run:
    """One training run: its folder (None for a checkpoint on its own), settings and data, its checkpoint; how many
    queries its data have, and the epochs behind a checkpoint on its own, where that is known; weights, teacher and
    training pictures that it comes from, where it tells them."""

    name: str
    config: Config
    data: str
    checkpoint: Path | None
    folder: Path | None
    queries: int | None = None
    epoch: int | None = None
    origin: tuple[str, ...] = ()

    @property
    def variant(self) -> Variant | None:
        return variant_of(self.config)

    @property
    def epochs_done(self) -> int:
        """Epochs behind the checkpoint; all, where neither a log nor the checkpoint tells."""
        lines = self.log()
        alone = self.config.epochs if self.epoch is None else self.epoch
        return int(lines[-1].get("epoch", 0)) if lines else alone

    @property
    def described(self) -> str:
        """Which network it is, in a line: an ablation's folder names model and seed, others have them added."""
        seed, variant = self.config.seed, self.variant
        if variant is not None and self.name == f"{variant.key}-seed{seed}":
            return f"{self.name}, epoch {self.epochs_done}"
        model = variant.title if variant is not None else f"attention={self.config.attention}"
        return f"{self.name} ({model}, seed {seed}), epoch {self.epochs_done}"

    @property
    def shown(self) -> Path | None:
        """The checkpoint, where its network knows full-size pictures."""
        return self.checkpoint if self.epochs_done > self.config.half_size_epochs else None

    def log(self) -> list[dict[str, Any]]:
        """The epochs' lines of log.jsonl."""
        return self._lines(LOG)

    def steps(self) -> list[dict[str, Any]]:
        """The iterations' lines of steps.jsonl."""
        return self._lines(STEPS)

    def measured(self) -> dict[str, Any] | None:
        """What the ablation measured on it, where it did."""
        path = self.folder and self.folder / ABLATION
        return read_measured(path) if path and path.is_file() else None

    def _lines(self, name: str) -> list[dict[str, Any]]:
        path = self.folder and self.folder / name
        return read_lines(path) if path and path.is_file() else []


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed only, under one title: one a seed, and `repeated` are the others."""

    title: str
    runs: tuple[Run, ...]
    repeated: tuple[Run, ...] = ()

    @property
    def first(self) -> Run:
        return self.runs[0]


def find_runs(paths: Iterable[Path]) -> tuple[Run, ...]:
    """The runs at `paths`: checkpoints (.pt), run folders, and folders of run folders.

    Raises:
        ValueError, OSError: there is none at a path, or one that cannot be read.
    """
    return tuple(run for path in paths for run in _runs_at(path))


def groups(runs: Sequence[Run]) -> tuple[Group, ...]:
    """The runs in groups of seeds, in the order of the tables, then as they are given; a group is called by its
    variant where no other group is of that variant, else by its first run's name, or path where names are alike.

    Of a seed that is there twice, the first run with a folder stays: its log tells more than a checkpoint."""
    found: dict[tuple[Config, str, tuple[str, ...]], dict[int, list[Run]]] = {}
    for run in runs:
        seeds = found.setdefault((replace(run.config, seed=0), run.data, run.origin), {})
        seeds.setdefault(run.config.seed, []).append(run)
    members = [
        [sorted(seed, key=lambda run: run.folder is None) for seed in seeds.values()] for seeds in found.values()
    ]
    firsts = [seeds[0][0] for seeds in members]
    variants, names = [run.variant for run in firsts], [run.name for run in firsts]

    def title(run: Run) -> str:
        own = run.name if names.count(run.name) == 1 else str(run.folder or run.checkpoint)
        name = run.variant.title if run.variant and variants.count(run.variant) == 1 else own
        done, epochs = run.epochs_done, run.config.epochs
        return name if done == epochs else f"{name} ({done} of {epochs} epochs)"

    def place(group: Group) -> int:
        return VARIANTS.index(group.first.variant) if group.first.variant else len(VARIANTS)

    grouped = (
        Group(title(seeds[0][0]), tuple(seed[0] for seed in seeds), tuple(run for seed in seeds for run in seed[1:]))
        for seeds in members
    )
    return tuple(sorted(grouped, key=place))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file; a last line without its end was being written and does not count.

    Raises:
        ValueError: it is no text in UTF-8, or a line is no JSON object of numbers.
    """
    lines = []
    for number, line in enumerate(_text(path).splitlines(keepends=True), start=1):
        if not line.endswith("\n"):
            break
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}, line {number} is no JSON: remove the line ({error})") from error
        if not isinstance(found, dict):
            raise ValueError(f"{path}, line {number} is no JSON object: remove the line")
        if type(found.get("epoch", 0)) is not int:
            raise ValueError(f"{path}, line {number} has an epoch that is no whole number: remove the line")
        if wrong := [name for name, value in found.items() if type(value) not in (int, float)]:
            raise ValueError(f"{path}, line {number}: {wrong[0]} is no number: remove the line")
        lines.append(found)
    return lines


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds one object.

    Raises:
        ValueError: it does not.
    """
    text = _text(path)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON: remove it ({error})") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} is no JSON object")
    return found


def read_measured(path: Path) -> dict[str, Any]:
    """What an ablation measured on a run, with all its figures.

    Raises:
        ValueError: a figure is missing, or no number.
    """
    found = read_object(path)
    for name in MEASURES:
        if not _is_number(found.get(name)):
            raise ValueError(f"{path} has no number {name}: remove it, and the ablation's command measures again")
    cmc = found.get("cmc")
    if not isinstance(cmc, list) or not cmc or not all(map(_is_number, cmc)):
        raise ValueError(f"{path} has no cmc of numbers: remove it, and the ablation's command measures again")
    return found


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8: it was damaged, or is another file") from error


def _runs_at(path: Path) -> list[Run]:
    if path.is_file():
        checkpoint = read_checkpoint(path)
        name = path.resolve().parent.name if path.name == LATEST else path.stem
        told = checkpoint.state
        return [
            Run(name, checkpoint.config, checkpoint.data_name, path, None, epoch=told["epoch"], origin=_origin(told))
        ]
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if (path / RUN).is_file():
        return [_run_of(path)]
    runs = [_run_of(file.parent) for file in sorted(path.glob(f"*/{RUN}"))]
    if not runs:
        raise ValueError(f"{path} holds no run: give a checkpoint, a run's folder (with {RUN}), or a folder of those")
    return runs


def _run_of(folder: Path) -> Run:
    told = read_object(folder / RUN)
    try:
        config, data = Config.from_dict(told["config"]), str(told["data"]["name"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / RUN} does not describe a run: {error}") from error
    query = told["data"].get("query")
    queries = query.get("images") if isinstance(query, dict) else None
    checkpoint = folder / LATEST
    return Run(
        folder.name,
        config,
        data,
        checkpoint if checkpoint.is_file() else None,
        folder,
        queries if isinstance(queries, int) else None,
        origin=_origin(told),
    )


def _origin(told: Mapping[str, Any]) -> tuple[str, ...]:
    """What a run tells of its weights, teacher and training pictures; files by their content."""
    values = *(told.get(name) for name in ("initialisation", "teacher", "teacher_layout")), told["data"].get("sha256")
    return tuple(str(content_of(value)) for value in values)
