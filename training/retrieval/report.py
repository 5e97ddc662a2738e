"""An evaluation as a table for people."""

from __future__ import annotations

from rich.table import Table

from training.retrieval.protocol import PRINTED_RANKS, PROTOCOLS, Evaluation


def table(evaluation: Evaluation) -> Table:
    """The figures in percent, under the model's and the data's names."""
    shown = Table(
        title=f"{evaluation.model} on {evaluation.data} ({evaluation.split})",
        caption=f"{evaluation.queries:,} queries ({evaluation.metrics.unmatched} without a match), gallery "
        f"{evaluation.gallery:,}, D = {evaluation.dim}, flip {'on' if evaluation.flip else 'off'}, "
        f"{evaluation.seconds:.1f} s\n{PROTOCOLS[evaluation.split]}",
    )
    metrics = evaluation.metrics
    figures = {
        **{f"rank-{k}": metrics.rank(k) for k in PRINTED_RANKS},
        "mAP": metrics.mAP,
        "mAP official": metrics.mAP_official,
        "mINP": metrics.mINP,
    }
    for name in figures:
        shown.add_column(name, justify="right")
    shown.add_row(*(f"{100 * value:.2f}" for value in figures.values()))
    return shown
