"""What the paper varied, what it printed for it (its Tables 3, 6 and 7), and which run is which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from training.config import Config

MEASURES = ("rank1", "rank5", "rank10", "rank20", "mAP")
VARIED = ("attention", "attention_scores", "losses")
MARKET = "Market-1501"
DUKE = "DukeMTMC-reID"

Printed = tuple[float, float, float, float, float]  # in percent, in the order of MEASURES


@dataclass(frozen=True)
class Variant:
    """One of the networks that the paper compares: `key` names its run folders, `title` its lines and panels; the
    others are settings."""

    key: str
    title: str
    attention: Literal["none", "spatial", "self"] = "self"
    attention_scores: Literal["softmax", "sigmoid"] = "softmax"
    losses: Literal["both", "cross_entropy", "triplet"] = "both"

    @property
    def settings(self) -> dict[str, Any]:
        """What it sets, by the names of the settings."""
        return {name: getattr(self, name) for name in VARIED}

    def apply(self, config: Config) -> Config:
        """`config` with this variant's settings."""
        return replace(config, **self.settings)


@dataclass(frozen=True)
class Row:
    """A row of a table: a variant, and the paper's figures for it on each data set."""

    title: str
    variant: Variant
    paper: Mapping[str, Printed]


@dataclass(frozen=True)
class Table:
    """A table of the paper: its number and what it varies."""

    number: int
    varied: str
    rows: tuple[Row, ...]

    def reference(self, data: str) -> str:
        """The data set whose printed figures stand beside ours: the same where the paper has it, else Market-1501."""
        return data if data in self.rows[0].paper else MARKET


OURS = Variant("self-attention", "self-attention")
NONE = Variant("resnet-50", "ResNet-50", attention="none")
SPATIAL = Variant("spatial-attention", "spatial attention", attention="spatial")
SIGMOID = Variant("sigmoid", "sigmoid scores", attention_scores="sigmoid")
CROSS_ENTROPY = Variant("cross-entropy", "cross-entropy alone", losses="cross_entropy")
TRIPLET = Variant("triplet", "triplet alone", losses="triplet")
VARIANTS = (NONE, SPATIAL, OURS, SIGMOID, CROSS_ENTROPY, TRIPLET)  # as the tables have them

_OURS_ON_MARKET: Printed = (90.2, 96.7, 98.1, 99.0, 82.7)
# As printed: the rank-20 below the rank-10 (DukeMTMC-reID, spatial attention) is the paper's.
TABLES = (
    Table(
        3,
        "attention",
        (
            Row(
                "ResNet-50",
                NONE,
                {
                    MARKET: (86.8, 94.0, 96.8, 98.0, 75.6),
                    DUKE: (76.8, 88.0, 90.2, 91.6, 74.2),
                    "CUHK03 (labeled)": (46.9, 72.0, 80.5, 86.4, 58.2),
                    "CUHK03 (detected)": (45.6, 70.2, 78.6, 85.4, 55.3),
                },
            ),
            Row(
                "spatial attention",
                SPATIAL,
                {
                    MARKET: (88.6, 93.9, 97.1, 98.0, 76.2),
                    DUKE: (78.2, 89.6, 92.4, 92.3, 75.8),
                    "CUHK03 (labeled)": (58.6, 76.3, 85.4, 88.7, 62.8),
                    "CUHK03 (detected)": (56.5, 74.8, 83.2, 88.5, 60.2),
                },
            ),
            Row(
                "self-attention",
                OURS,
                {
                    MARKET: _OURS_ON_MARKET,
                    DUKE: (81.0, 92.4, 94.2, 95.9, 78.0),
                    "CUHK03 (labeled)": (64.8, 84.3, 89.3, 93.2, 72.7),
                    "CUHK03 (detected)": (60.5, 80.1, 87.4, 91.8, 67.8),
                },
            ),
        ),
    ),
    Table(
        6,
        "activation of the attention's scores",
        (
            Row("softmax", OURS, {MARKET: _OURS_ON_MARKET}),
            Row("sigmoid", SIGMOID, {MARKET: (89.4, 95.9, 98.0, 99.0, 81.5)}),
        ),
    ),
    Table(
        7,
        "loss",
        (
            Row("cross-entropy", CROSS_ENTROPY, {MARKET: (85.3, 94.8, 97.0, 98.3, 76.4)}),
            Row("triplet", TRIPLET, {MARKET: (86.2, 95.1, 97.3, 98.8, 76.8)}),
            Row("both", OURS, {MARKET: _OURS_ON_MARKET}),
        ),
    ),
)


def variant_of(config: Config) -> Variant | None:
    """The variant that a run is, or None where it is a mixture that the paper does not compare."""
    for variant in VARIANTS:
        if variant.apply(config) == config:
            return variant
    return None
