"""From runs and a data set to figures: one function a figure, which says what it misses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from training.data.dataset import DISTRACTOR, Sample, short_name, spread
from training.figures.curves import Accuracy, Cmc, draw_accuracy, draw_cmc, draw_losses
from training.figures.embeddings import FEWEST, Scatter, draw_scatter, perplexity_of, project
from training.figures.maps import draw_kernel, draw_people, draw_stages, received_attention
from training.figures.material import Material, Missing
from training.figures.ranked import RankedList, count_matches, draw_ranked, nearest
from training.figures.runs import Group, Run
from training.figures.variants import CROSS_ENTROPY, DUKE, NONE, OURS, SPATIAL, TRIPLET, Variant
from training.retrieval.metrics import rank_metrics
from training.retrieval.ranking import Ranking

IDENTITIES = 10  # in the scatter
PICTURES = 30  # of each of them, at most
PEOPLE = 8  # under the attention
LISTS = 6  # queries with their answers
LOSSES = {OURS: "both losses", CROSS_ENTROPY: CROSS_ENTROPY.title, TRIPLET: TRIPLET.title}  # Table 7
TABLE_3 = (NONE, SPATIAL, OURS)

Drawn = Iterator[tuple[str, Figure]]  # names of files, without the suffix


def draw_embeddings(material: Material) -> Drawn:
    """Fig. 4, of those losses of which there is a run."""
    chosen = {LOSSES[variant]: run for variant in LOSSES if (run := _first(material, variant)) is not None}
    if not chosen:
        raise Missing("a checkpoint of self-attention trained with losses cross_entropy, triplet or both")
    material.without("fig4-embeddings", [v for v, title in LOSSES.items() if title not in chosen])
    ranking = material.ranking()
    samples = people_of(ranking)
    if len(samples) < FEWEST:
        raise Missing(f"{FEWEST} pictures of test people at least")
    identities = np.array([sample.identity for sample in samples], np.int64)
    panels = {title: Scatter(project(material.embed(run, samples)), identities) for title, run in chosen.items()}
    material.of(list(chosen.values()))
    everybody = {s.identity for s in (*ranking.query, *ranking.gallery) if s.identity > DISTRACTOR}
    shown = f"{len(set(identities.tolist()))} of {len(everybody)} people"
    method = f"t-SNE, perplexity {perplexity_of(len(samples)):.3g}"
    yield "fig4-embeddings", draw_scatter(panels, f"Data: {material.test_data().name}, test part; {shown}; {method}")


def draw_accuracies(material: Material) -> Drawn:
    """Figs. 6 and 7: of the models of Table 3 that were measured while they trained, one figure a data set."""
    compared = [group for group in material.groups() if group.first.variant in TABLE_3]
    models = [(group, model) for group in compared if (model := _accuracy(group)) is not None]
    if not models:
        raise Missing("a run of Table 3 that was measured while it trained (--set eval_every=N)")
    for data in dict.fromkeys(group.first.data for group, _ in models):
        stem = f"fig{7 if data == DUKE else 6}-accuracy-{short_name(data)}"
        shown = [(group.first.variant, model) for group, model in models if group.first.data == data]
        material.without(stem, [v for v in TABLE_3 if v not in {variant for variant, _ in shown}])
        queries = _queries([group for group, _ in models if group.first.data == data])
        yield stem, draw_accuracy([model for _, model in shown], data, queries)


def draw_loss_curves(material: Material) -> Drawn:
    """Fig. 8, of the runs under each loss, one figure a data set; where there are none, of the first run."""
    logged = [(group, run) for group in material.groups() if (run := _logged(group)) is not None]
    chosen = [(group, run) for group, run in logged if run.variant in LOSSES] or logged[:1]
    if not chosen:
        raise Missing("a run's folder with steps.jsonl")
    material.of([run for _, run in chosen])
    for data in dict.fromkeys(run.data for _, run in chosen):
        panels = {_loss_title(group): _losses(run) for group, run in chosen if run.data == data}
        yield f"fig8-losses-{short_name(data)}", draw_losses(panels, data)


def draw_stage_maps(material: Material) -> Drawn:
    """Fig. 9, of the first query."""
    run = material.looked_into()
    query = material.ranking().query[0]
    crops, seen = material.look(run, [query])
    maps = {name: maps[0] for name, maps in seen.stages.items()}
    yield "fig9-feature-maps", draw_stages(crops[0], maps, _title(material, run, query))


def draw_attention_kernel(material: Material) -> Drawn:
    """Fig. 10, of the first query and the position that receives the most attention in it."""
    run = material.looked_into("none")
    query = material.ranking().query[0]
    crops, seen = material.look(run, [query])
    most = int(received_attention(seen.attention[0], seen.shape).argmax())
    title = f"{_title(material, run, query)}; position {most} receives the most attention"
    yield "fig10-attention-kernel", draw_kernel(crops[0], seen.attention[0], seen.shape, most, title)


def draw_attention_over_people(material: Material) -> Drawn:
    """Fig. 11, of queries of different people, evenly over the data set."""
    run, data = material.looked_into("none"), material.test_data()
    one_each = {sample.identity: sample for sample in reversed(material.ranking().query)}
    people = spread([one_each[identity] for identity in sorted(one_each)], PEOPLE)
    crops, seen = material.look(run, people)
    received = [received_attention(attention, seen.shape) for attention in seen.attention]
    names = [data.identity_name(sample.identity) for sample in people]
    yield "fig11-attention", draw_people(names, list(crops), received, _title(material, run))


def draw_ranked_lists(material: Material) -> Drawn:
    """Queries evenly over the data set, and the nearest of the whole gallery."""
    run, ranking = material.looked_into(), material.ranking()
    gallery = material.embed_part(run, "gallery")
    queries = spread(ranking.query, LISTS)
    lists = []
    for query, crop, embedding in zip(queries, material.crops(run, queries), material.embed(run, queries), strict=True):
        hits = nearest(query, embedding, ranking.gallery, gallery)
        pictures = material.crops(run, [ranking.gallery[hit.index] for hit in hits])
        answers = tuple(zip(hits, pictures, strict=True))
        matches = count_matches(query, ranking.gallery)
        lists.append(RankedList(_person(material, query), crop, matches, answers))
    chosen = f"{len(queries)} of {len(ranking.query)} queries, evenly over their list"
    yield "ranked-lists", draw_ranked(lists, f"{_title(material, run)}; {chosen}")


def draw_cmc_curves(material: Material) -> Drawn:
    """Of every model on one data set: as the ablation measured it where it did, else measured here."""
    data = material.data.name if material.data else material.runs[0].data
    found = [(group, model) for group in material.groups() if (model := _cmc(material, group, data)) is not None]
    if not found:
        raise Missing("--data and a checkpoint, or the runs of an ablation")
    queries = len(material.ranking().query) if material.data else _queries([group for group, _ in found])
    yield "cmc", draw_cmc([model for _, model in found], data, queries)


def people_of(ranking: Ranking) -> list[Sample]:
    """The pictures, at most 30 each, of ten test people, evenly over those who have two or more."""
    pictures: dict[int, list[Sample]] = {}
    for sample in (*ranking.query, *ranking.gallery):
        if sample.identity > DISTRACTOR:
            pictures.setdefault(sample.identity, []).append(sample)
    people = [pictures[identity] for identity in sorted(pictures) if len(pictures[identity]) > 1]
    return [sample for person in spread(people, IDENTITIES) for sample in person[:PICTURES]]


def _person(material: Material, sample: Sample) -> str:
    """Who is in a picture, and which camera took it."""
    data = material.test_data()
    return f"{data.identity_name(sample.identity)}, camera {data.camera_name(sample.camera)}"


def _title(material: Material, run: Run, query: Sample | None = None) -> str:
    """A title that says which network was looked into, on which data, and with which query where it is one."""
    network = f"{run.described}\nData: {material.test_data().name}, test part"
    return network if query is None else f"{network}; query: {_person(material, query)}"


def _queries(chosen: Sequence[Group]) -> int | None:
    """How many queries the groups were measured with, where they all tell the same."""
    told = {run.queries for group in chosen for run in group.runs}
    return told.pop() if len(told) == 1 else None


def _first(material: Material, variant: Variant) -> Run | None:
    """The first run of a variant that has a checkpoint."""
    return next((run for run in material.runs if run.shown and run.variant is variant), None)


def _accuracy(group: Group) -> Accuracy | None:
    """The group's measurements at the epochs that all its measured seeds have in common; None where there are none."""
    every = (
        {int(line["epoch"]): line for line in run.log() if {"epoch", "rank1", "mAP"} <= line.keys()}
        for run in group.runs
    )
    measured = [lines for lines in every if lines]
    epochs = sorted(set.intersection(*map(set, measured))) if measured else []
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


def _logged(group: Group) -> Run | None:
    """The first of the group's runs that logged its iterations."""
    return next((run for run in group.runs if run.steps()), None)


def _losses(run: Run) -> dict[str, NDArray[np.float64]]:
    """The parts of the loss that every iteration has, by their names."""
    steps = run.steps()
    names = [name for name in steps[0] if name not in ("epoch", "step") and all(name in step for step in steps)]
    return {name: np.array([step[name] for step in steps], np.float64) for name in names}


def _cmc(material: Material, group: Group, data: str) -> Cmc | None:
    """The curves of the group's seeds; None where no seed has one."""
    found = [curve for run in group.runs if (curve := _cmc_of(material, run, data)) is not None]
    if not found:
        return None
    return Cmc(
        group.title, np.array([cmc for cmc, _ in found]), np.array([mean_precision for _, mean_precision in found])
    )


def _cmc_of(material: Material, run: Run, data: str) -> tuple[Sequence[float], float] | None:
    """CMC and mAP of a run, as the ablation measured them on this data, else measured now where that can be."""
    measured = run.measured()
    if measured is not None and measured.get("data") == data:
        return measured["cmc"], measured["mAP"]
    if material.data is None or run.shown is None:
        return None
    query, gallery = (material.embed_part(run, part) for part in ("query", "gallery"))
    metrics = rank_metrics(query, gallery, material.ranking().labels())
    return metrics.cmc, metrics.mAP


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
