"""The ablation's tables: ours beside the paper's, as Markdown for people and as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from training.figures.variants import MEASURES, Row, Table

HEADINGS = {"rank1": "rank-1", "rank5": "rank-5", "rank10": "rank-10", "rank20": "rank-20", "mAP": "mAP"}
STANDARD_MAP = (
    "The paper's mAP on CUHK03 lies above its rank-1, which the standard protocol does not give: "
    "its figures are of the single-gallery-shot metric, which evaluate.py prints besides (docs/reproduction.md)."
)

# Of a run's last epoch, by the names in its log.
LOGGED = {
    "cross_entropy": "cross-entropy",
    "triplet": "triplet",
    "accuracy": "accuracy",
    "alpha": "alpha",
    "attention_ratio": "‖y − x‖ / ‖x‖",
    "attention_entropy": "entropy, nats",
}

# Of each variant, by its key, what every finished seed measured: values in [0, 1] by the names of MEASURES.
Results = Mapping[str, Sequence[Mapping[str, float]]]


@dataclass(frozen=True)
class Spread:
    """A figure over seeds, in percent; `deviation` is the sample's, None for a single seed."""

    mean: float
    deviation: float | None
    values: tuple[float, ...]

    @classmethod
    def of(cls, shares: Sequence[float]) -> Spread:
        """From shares in [0, 1]. Raises ValueError where there are none."""
        if not shares:
            raise ValueError("a figure needs a finished run")
        values = tuple(100 * share for share in shares)
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, values)

    def __str__(self) -> str:
        return f"{self.mean:.1f}" if self.deviation is None else f"{self.mean:.1f} ± {self.deviation:.1f}"


@dataclass(frozen=True)
class Ended:
    """A finished run: what was measured on it, in [0, 1], and its log, a record an epoch."""

    title: str
    measured: Mapping[str, Any]
    log: Sequence[Mapping[str, Any]]


def spreads(row: Row, results: Results) -> dict[str, Spread] | None:
    """The row's figures, or None while none of its runs is finished."""
    measured = results.get(row.variant.key, ())
    return {name: Spread.of([run[name] for run in measured]) for name in MEASURES} if measured else None


def markdown(table: Table, results: Results, data: str) -> str:
    """The table in Markdown; what is not measured yet is a dash.

    Args:
        results: of the runs on `data`.
        data: the data set's name.
    """
    reference = table.reference(data)
    headings = [f"{HEADINGS[name]} | paper" for name in MEASURES]
    lines = [
        f"### Table {table.number}: {table.varied}",
        "",
        f"| | {' | '.join(headings)} |",
        f"|---|{'---:|' * 2 * len(MEASURES)}",
    ]
    for row in table.rows:
        ours = spreads(row, results)
        cells = [
            f"{ours[name] if ours else '–'} | {printed:.1f}"
            for name, printed in zip(MEASURES, row.paper[reference], strict=True)
        ]
        lines.append(f"| {row.title} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *_notes(table, results, data), ""])


def runs_markdown(runs: Sequence[Ended]) -> str:
    """How every finished run ended, in Markdown: what it learnt, what its attention does, and the time that it took."""
    headings = ["epochs", "minutes", *LOGGED.values(), "rank-1", "mAP"]
    lines = ["### The runs", "", f"| | {' | '.join(headings)} |", f"|---|{'---:|' * len(headings)}"]
    for run in runs:
        last = run.log[-1] if run.log else {}
        minutes = sum(epoch.get("seconds", 0.0) for epoch in run.log) / 60
        cells = [
            str(len(run.log)),
            f"{minutes:.1f}",
            *(f"{last[name]:.3g}" if name in last else "–" for name in LOGGED),
            *(f"{100 * run.measured[name]:.1f}" for name in ("rank1", "mAP")),
        ]
        lines.append(f"| {run.title} | {' | '.join(cells)} |")
    return "\n".join(
        [*lines, "", "Losses and accuracy are means over the last epoch's batches. Minutes are of training alone.", ""]
    )


def record(table: Table, results: Results, data: str) -> dict[str, Any]:
    """The table as JSON: percent, ours with every seed's value, the paper's with the data set that they are of."""
    reference = table.reference(data)
    rows = []
    for row in table.rows:
        ours = spreads(row, results)
        rows.append(
            {
                "title": row.title,
                "settings": row.variant.settings,
                "ours": {name: asdict(spread) for name, spread in ours.items()} if ours else None,
                "paper": dict(zip(MEASURES, row.paper[reference], strict=True)),
            }
        )
    return {"table": table.number, "varied": table.varied, "data": data, "paper_data": reference, "rows": rows}


def _notes(table: Table, results: Results, data: str) -> list[str]:
    """What has to be known to read the table, one sentence a line."""
    reference = table.reference(data)
    counts = sorted({len(results.get(row.variant.key, ())) for row in table.rows})
    seeds = f"{counts[0]}" if len(counts) == 1 else f"from {counts[0]} to {counts[-1]}"
    notes = [f"In percent. Ours on {data}, runs a row: {seeds}{', mean ± deviation' if counts[-1] > 1 else ''}."]
    if reference == data:
        notes.append(f"The paper's on {reference}.")
    else:
        notes.append(f"The paper's on {reference}, since it has none on {data}: do not compare them.")
    if reference.startswith("CUHK03"):
        notes.append(STANDARD_MAP)
    return [" ".join(notes)]
