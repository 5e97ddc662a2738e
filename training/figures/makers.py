"""From runs and a data set to figures: one function a figure, which says what it misses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from training.data.dataset import DISTRACTOR, Dataset, Sample, short_name
from training.data.images import read_crop
from training.figures.activations import Activations, look
from training.figures.curves import Accuracy, Cmc, draw_accuracy, draw_cmc, draw_losses
from training.figures.embeddings import FEWEST, Scatter, draw_scatter, project
from training.figures.maps import draw_kernel, draw_people, draw_stages, received_attention
from training.figures.ranked import RankedList, draw_ranked, nearest
from training.figures.runs import Group, Run, groups
from training.figures.variants import CROSS_ENTROPY, DUKE, NONE, OURS, SPATIAL, TRIPLET, Variant
from training.network.model import Embedder
from training.network.stored import load_checkpoint_model, read_checkpoint
from training.retrieval.embedding import Embeddings, embed_samples
from training.retrieval.metrics import rank_metrics
from training.retrieval.ranking import Ranking, ranking_of
from training.retrieval.torch_model import NetworkModel

IDENTITIES = 10  # in the scatter
PICTURES = 30  # of each of them, at most
PEOPLE = 8  # under the attention
LISTS = 6  # queries with their answers
LOSSES = {OURS: "both losses", CROSS_ENTROPY: CROSS_ENTROPY.title, TRIPLET: TRIPLET.title}  # Table 7
TABLE_3 = (NONE, SPATIAL, OURS)

Drawn = Iterator[tuple[str, Figure]]  # names of files, without the suffix


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
    remarks: list[str] = field(default_factory=list)  # what the figures that were drawn do not show, a clause each

    def without(self, figure: str, absent: Sequence[Variant]) -> None:
        """Remark that a figure is a part of the paper's, where models of it are absent."""
        if absent:
            self.remarks.append(f"{figure} is a part of the paper's: there is no run of {_listed(absent)}")

    def test_data(self) -> Dataset:
        if self.data is None:
            raise Missing("--data, for pictures to look at")
        return self.data

    def ranking(self) -> Ranking:
        return ranking_of(self.test_data(), "test")

    def looked_into(self, *unlike: str) -> Run:
        """The run that is shown where one is: the first of the paper's own model, else the first with a checkpoint;
        none whose attention is one of `unlike`."""
        usable = [run for run in self.runs if run.shown and run.config.attention not in unlike]
        if not usable:
            raise Missing(f"a checkpoint{f' of a run with an attention that is not {unlike[0]}' if unlike else ''}")
        return next((run for run in usable if run.variant is OURS), usable[0])

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
        with Progress(console=self.console, transient=True, disable=self.console is None) as bar:
            task = bar.add_task(f"embedding for {run.name}", total=len(samples))
            return embed_samples(model, samples, advance=lambda done: bar.advance(task, done))

    def embed_part(self, run: Run, part: str) -> Embeddings:
        """Of all the queries, or of the whole gallery: "query" or "gallery"."""
        if (run, part) not in self.embedded:
            samples: tuple[Sample, ...] = getattr(self.ranking(), part)
            self.embedded[run, part] = self.embed(run, samples)
        return self.embedded[run, part]


def draw_embeddings(material: Material) -> Drawn:
    """Fig. 4, of those losses of which there is a run."""
    chosen = {LOSSES[variant]: run for variant in LOSSES if (run := _first(material, variant)) is not None}
    if not chosen:
        raise Missing("a checkpoint of self-attention trained with losses cross_entropy, triplet or both")
    material.without("fig4-embeddings", [v for v, title in LOSSES.items() if title not in chosen])
    samples = people_of(material.ranking())
    if len(samples) < FEWEST:
        raise Missing(f"{FEWEST} pictures of test people at least")
    identities = np.array([sample.identity for sample in samples], np.int64)
    panels = {title: Scatter(project(material.embed(run, samples)), identities) for title, run in chosen.items()}
    yield "fig4-embeddings", draw_scatter(panels, material.test_data().name)


def draw_accuracies(material: Material) -> Drawn:
    """Figs. 6 and 7: of the models of Table 3 that were measured while they trained, one figure a data set."""
    compared = [group for group in groups(material.runs) if group.first.variant in TABLE_3]
    models = [(group, model) for group in compared if (model := _accuracy(group)) is not None]
    if not models:
        raise Missing("a run of Table 3 that was measured while it trained (--set eval_every=N)")
    for data in dict.fromkeys(group.first.data for group, _ in models):
        stem = f"fig{7 if data == DUKE else 6}-accuracy-{short_name(data)}"
        shown = [(group.first.variant, model) for group, model in models if group.first.data == data]
        material.without(stem, [v for v in TABLE_3 if v not in {variant for variant, _ in shown}])
        yield stem, draw_accuracy([model for _, model in shown], data)


def draw_loss_curves(material: Material) -> Drawn:
    """Fig. 8, of the runs under each loss, one figure a data set; where there are none, of the first run."""
    logged = [group for group in groups(material.runs) if group.first.steps()]
    chosen = [group for group in logged if group.first.variant in LOSSES] or logged[:1]
    if not chosen:
        raise Missing("a run's folder with steps.jsonl")
    for data in dict.fromkeys(group.first.data for group in chosen):
        panels = {_loss_title(group): _losses(group.first) for group in chosen if group.first.data == data}
        yield f"fig8-losses-{short_name(data)}", draw_losses(panels, data)


def draw_stage_maps(material: Material) -> Drawn:
    """Fig. 9, of the first query."""
    run = material.looked_into()
    crops, seen = material.look(run, material.ranking().query[:1])
    yield "fig9-feature-maps", draw_stages(crops[0], {name: maps[0] for name, maps in seen.stages.items()})


def draw_attention_kernel(material: Material) -> Drawn:
    """Fig. 10, of the first query and the position in the middle of its map."""
    run = material.looked_into("none")
    crops, seen = material.look(run, material.ranking().query[:1])
    height, width = seen.shape
    middle = height // 2 * width + width // 2
    yield "fig10-attention-kernel", draw_kernel(crops[0], seen.attention[0], seen.shape, middle)


def draw_attention_over_people(material: Material) -> Drawn:
    """Fig. 11, of queries of different people, evenly over the data set."""
    run = material.looked_into("none")
    one_each = {sample.identity: sample for sample in reversed(material.ranking().query)}
    crops, seen = material.look(run, spread([one_each[identity] for identity in sorted(one_each)], PEOPLE))
    received = [received_attention(attention, seen.shape) for attention in seen.attention]
    yield "fig11-attention", draw_people(list(crops), received)


def draw_ranked_lists(material: Material) -> Drawn:
    """Queries evenly over the data set, and the nearest of the whole gallery."""
    run, data = material.looked_into(), material.test_data()
    ranking = material.ranking()
    gallery = material.embed_part(run, "gallery")
    queries = spread(ranking.query, LISTS)
    lists = []
    for query, crop, embedding in zip(queries, material.crops(run, queries), material.embed(run, queries), strict=True):
        hits = nearest(query, embedding, ranking.gallery, gallery)
        pictures = material.crops(run, [ranking.gallery[hit.index] for hit in hits])
        answers = tuple(zip(hits, pictures, strict=True))
        lists.append(
            RankedList(f"{data.identity_name(query.identity)}, camera {data.camera_name(query.camera)}", crop, answers)
        )
    yield "ranked-lists", draw_ranked(lists)


def draw_cmc_curves(material: Material) -> Drawn:
    """Of every model on one data set: as the ablation measured it where it did, else measured here."""
    data = material.data.name if material.data else material.runs[0].data
    models = [model for group in groups(material.runs) if (model := _cmc(material, group, data)) is not None]
    if not models:
        raise Missing("--data and a checkpoint, or the runs of an ablation")
    yield "cmc", draw_cmc(models, data)


def spread(samples: Sequence[Sample], count: int) -> list[Sample]:
    """`count` samples (or all, where there are fewer) evenly over the sequence."""
    return [samples[i] for i in np.linspace(0, len(samples) - 1, min(count, len(samples)), dtype=int)]


def people_of(ranking: Ranking) -> list[Sample]:
    """The pictures, at most 30 each, of ten test people, evenly over those who have two or more."""
    pictures: dict[int, list[Sample]] = {}
    for sample in (*ranking.query, *ranking.gallery):
        if sample.identity > DISTRACTOR:
            pictures.setdefault(sample.identity, []).append(sample)
    people = [pictures[identity] for identity in sorted(pictures) if len(pictures[identity]) > 1]
    chosen = [people[i] for i in np.linspace(0, len(people) - 1, min(IDENTITIES, len(people)), dtype=int)]
    return [sample for person in chosen for sample in person[:PICTURES]]


def _listed(variants: Sequence[Variant]) -> str:
    return ", ".join(variant.title for variant in variants)


def _first(material: Material, variant: Variant) -> Run | None:
    """The first run of a variant that has a checkpoint."""
    return next((run for run in material.runs if run.shown and run.variant is variant), None)


def _accuracy(group: Group) -> Accuracy | None:
    """The group's measurements at the epochs that all its seeds have in common; None where there are none."""
    measured = [
        {int(line["epoch"]): line for line in run.log() if {"epoch", "rank1", "mAP"} <= line.keys()}
        for run in group.runs
    ]
    epochs = sorted(set.intersection(*(set(lines) for lines in measured)))
    if not epochs:
        return None
    rank1, mean_precision = (
        np.array([[lines[epoch][name] for epoch in epochs] for lines in measured], np.float64)
        for name in ("rank1", "mAP")
    )
    return Accuracy(group.title, np.array(epochs), rank1, mean_precision)


def _loss_title(group: Group) -> str:
    """What a panel is called: by its loss, where the group has its variant's name to itself."""
    variant = group.first.variant
    return LOSSES[variant] if variant in LOSSES and group.title == variant.title else group.title


def _losses(run: Run) -> dict[str, NDArray[np.float64]]:
    """The parts of the loss that every iteration has, by their names."""
    steps = run.steps()
    names = [name for name in steps[0] if name not in ("epoch", "step") and all(name in step for step in steps)]
    return {name: np.array([step[name] for step in steps], np.float64) for name in names}


def _cmc(material: Material, group: Group, data: str) -> Cmc | None:
    known = [found for run in group.runs if (found := run.measured()) is not None and found.get("data") == data]
    if known:
        cmc = np.mean([found["cmc"] for found in known], axis=0)
        return Cmc(group.title, cmc, float(np.mean([found["mAP"] for found in known])))
    if material.data is None or group.first.shown is None:
        return None
    query, gallery = (material.embed_part(group.first, part) for part in ("query", "gallery"))
    metrics = rank_metrics(query, gallery, material.ranking().labels())
    return Cmc(group.title, np.array(metrics.cmc), metrics.mAP)


MAKERS: dict[str, Callable[[Material], Drawn]] = {
    "embeddings": draw_embeddings,
    "accuracy": draw_accuracies,
    "losses": draw_loss_curves,
    "feature-maps": draw_stage_maps,
    "kernel": draw_attention_kernel,
    "attention": draw_attention_over_people,
    "ranked": draw_ranked_lists,
    "cmc": draw_cmc_curves,
}
