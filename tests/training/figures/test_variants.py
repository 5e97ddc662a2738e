from __future__ import annotations

from dataclasses import replace

import pytest

from training.config import Config
from training.figures.variants import MARKET, NONE, OURS, TABLES, VARIANTS, Variant, variant_of


def test_the_three_tables_are_six_runs() -> None:
    used = [row.variant for table in TABLES for row in table.rows]
    assert [table.number for table in TABLES] == [3, 6, 7]
    assert len(used) == 8
    assert set(used) == set(VARIANTS)
    assert len({tuple(variant.settings.values()) for variant in VARIANTS}) == len(VARIANTS) == 6


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.key)
def test_a_run_is_recognised_by_its_settings(variant: Variant) -> None:
    base = Config(epochs=7, warmup_epochs=1, seed=5, attention="spatial", losses="triplet")
    config = variant.apply(base)
    assert variant_of(config) is variant
    assert replace(config, attention="spatial", attention_scores="softmax", losses="triplet") == base


def test_a_mixture_is_no_variant() -> None:
    assert variant_of(replace(NONE.apply(Config()), losses="triplet")) is None


def test_the_papers_own_model_has_the_same_figures_in_every_table() -> None:
    printed = [row.paper[MARKET] for table in TABLES for row in table.rows if row.variant is OURS]
    assert printed == [(90.2, 96.7, 98.1, 99.0, 82.7)] * 3


def test_every_row_of_a_table_has_the_same_data_sets() -> None:
    for table in TABLES:
        assert len({tuple(row.paper) for row in table.rows}) == 1
        assert MARKET in table.rows[0].paper


def test_the_reference_is_the_same_data_where_the_paper_has_it() -> None:
    attention, scores, _ = TABLES
    assert attention.reference("CUHK03 (labeled)") == "CUHK03 (labeled)"
    assert attention.reference("drawn") == MARKET
    assert scores.reference("DukeMTMC-reID") == MARKET
