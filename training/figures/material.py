"""What figures are drawn from: runs, their networks, a data set, and what was worked out of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from training.data.dataset import Dataset, Sample
from training.data.images import read_crop
from training.figures.activations import Activations, look
from training.figures.runs import Group, Run, groups
from training.figures.variants import OURS, Variant
from training.network.model import Embedder
from training.network.stored import load_checkpoint_model, read_checkpoint
from training.retrieval.embedding import Embeddings, embed_samples
from training.retrieval.ranking import Ranking, ranking_of
from training.retrieval.torch_model import NetworkModel


class Missing(Exception):
    """What a figure needs and was not given."""


@dataclass
class Material:
    """What there is to draw from. Networks and embeddings are kept: several figures want the same."""

    runs: tuple[Run, ...]
    data: Dataset | None
    device: torch.device | str = "cpu"
    console: Console | None = None
    embedders: dict[Run, Embedder] = field(default_factory=dict)
    embedded: dict[tuple[Run, str], Embeddings] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)  # of the figures being drawn, a clause each

    def without(self, figure: str, absent: Sequence[Variant]) -> None:
        """Remark that a figure is a part of the paper's, where models of it are absent."""
        if absent:
            listed = ", ".join(variant.title for variant in absent)
            self.remarks.append(f"{figure} is a part of the paper's: there is no run of {listed}")

    def of(self, shown: Sequence[Run]) -> None:
        """Remark which runs a figure shows."""
        self.remarks.append(f"of {'; '.join(run.described for run in shown)}")

    def groups(self) -> tuple[Group, ...]:
        """The runs in groups of seeds (see `groups`). Remarks which are left out because their seed is there twice."""
        found = groups(self.runs)
        for run in (run for group in found for run in group.repeated):
            self.remarks.append(f"{run.folder or run.checkpoint} is left out: a run like it has the same seed")
        return found

    def test_data(self) -> Dataset:
        if self.data is None:
            raise Missing("--data, for pictures to look at")
        return self.data

    def ranking(self) -> Ranking:
        return ranking_of(self.test_data(), "test")

    def looked_into(self, *unlike: str) -> Run:
        """The run that is shown where one is: the first of the paper's own model, else the first with a checkpoint;
        none whose attention is one of `unlike`. Remarks which it is."""
        usable = [run for run in self.runs if run.shown and run.config.attention not in unlike]
        if not usable:
            raise Missing(f"a checkpoint{f' of a run with an attention that is not {unlike[0]}' if unlike else ''}")
        run = next((run for run in usable if run.variant is OURS), usable[0])
        self.of([run])
        return run

    def embedder(self, run: Run) -> Embedder:
        if run not in self.embedders:
            assert run.shown is not None
            self.embedders[run] = load_checkpoint_model(read_checkpoint(run.shown)).to(self.device)
        return self.embedders[run]

    def crops(self, run: Run, samples: Sequence[Sample]) -> NDArray[np.uint8]:
        """uint8 [N, H, W, 3], as the run's network sees them."""
        return np.stack([read_crop(sample, run.config.height, run.config.width) for sample in samples])

    def look(self, run: Run, samples: Sequence[Sample]) -> tuple[NDArray[np.uint8], Activations]:
        """Crops of the samples, and what the run's network makes of them."""
        crops = self.crops(run, samples)
        return crops, look(self.embedder(run), crops, self.device)

    def embed(self, run: Run, samples: Sequence[Sample]) -> Embeddings:
        """Unit embeddings [N, D]."""
        model = NetworkModel(self.embedder(run), run.config.height, run.config.width, self.device)
        hidden = self.console is None or not self.console.is_terminal  # elsewhere it would leave an empty line
        with Progress(console=self.console, transient=True, disable=hidden) as bar:
            task = bar.add_task(f"embedding for {run.name}", total=len(samples))
            return embed_samples(model, samples, advance=lambda done: bar.advance(task, done))

    def embed_part(self, run: Run, part: str) -> Embeddings:
        """Of all the queries, or of the whole gallery: "query" or "gallery"."""
        if (run, part) not in self.embedded:
            samples: tuple[Sample, ...] = getattr(self.ranking(), part)
            self.embedded[run, part] = self.embed(run, samples)
        return self.embedded[run, part]
