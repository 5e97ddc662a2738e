"""An evaluation as tables for people; figures in percent."""

from __future__ import annotations

from collections.abc import Mapping

from rich.markup import escape
from rich.table import Table

from training.data.dataset import UNKNOWN_CAMERA
from training.retrieval.metrics import PRINTED_RANKS, RankMetrics
from training.retrieval.protocol import Evaluation
from training.retrieval.single_shot import SingleShot

NOTHING = "-"
FLIP = {True: "on", False: "off", None: "unknown"}


def table(evaluation: Evaluation) -> Table:
    """What was measured, a row each, under the model's and the data's names."""
    shown = Table(title=f"{evaluation.model} on {evaluation.data} ({evaluation.split})", caption=_caption(evaluation))
    shown.add_column("")
    for name in (*(f"rank-{k}" for k in PRINTED_RANKS), "mAP", "mAP official", "mINP"):
        shown.add_column(name, justify="right")
    shown.add_row("single query", *_cells(evaluation.metrics))
    for name, metrics in (("re-ranked", evaluation.reranked), ("multi-query", evaluation.multi_query)):
        if metrics:
            shown.add_row(name, *_cells(metrics))
    if evaluation.single_gallery_shot:
        shown.add_row("single gallery shot", *_shot_cells(evaluation.single_gallery_shot))
    return shown


def camera_tables(evaluation: Evaluation) -> list[Table]:
    """Rank-1 and mAP, a row a camera of queries and a column a camera of the gallery, each with the number of queries
    that have a match there; '-' without one; no table where the pairs were not measured."""
    pairs, names = evaluation.camera_pairs, evaluation.camera_names or {}
    if pairs is None:
        return []
    tables = []
    for figure, values in (("rank-1", pairs.rank1), ("mAP", pairs.mAP)):
        title = f"{figure} by cameras, queries down and gallery across"
        shown = Table(title=title, caption="in brackets: queries that have a match there")
        shown.add_column("")
        for camera in pairs.gallery_cameras:
            shown.add_column(_camera(camera, names), justify="right")
        for camera, row, queries in zip(pairs.query_cameras, values, pairs.queries, strict=True):
            shown.add_row(_camera(camera, names), *map(_of_queries, row, queries))
        tables.append(shown)
    return tables


def _caption(evaluation: Evaluation) -> str:
    facts = (
        f"{evaluation.queries:,} queries ({evaluation.metrics.unmatched} without a match), gallery "
        f"{evaluation.gallery:,}, D = {evaluation.dim}, flip {FLIP[evaluation.flip]}, "
        f"{evaluation.seconds:.1f} s"
    )
    return "\n".join([facts, evaluation.protocol, *evaluation.further_protocols().values()])


def _cells(metrics: RankMetrics) -> list[str]:
    return [_percent(value) for value in metrics.figures().values()]


def _shot_cells(shot: SingleShot) -> list[str]:
    return [*(_percent(value) for value in shot.figures().values()), NOTHING, NOTHING]


def _camera(camera: int, names: Mapping[int, str]) -> str:
    return "unknown" if camera == UNKNOWN_CAMERA else escape(names.get(camera, f"c{camera}"))


def _of_queries(value: float | None, queries: int) -> str:
    return NOTHING if value is None else f"{_percent(value)} ({queries:,})"


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"
