"""The tables that people read."""

from __future__ import annotations

import io

from rich.console import Console
from rich.table import Table

from training.retrieval.camera_pairs import CameraPairs
from training.retrieval.metrics import RankMetrics
from training.retrieval.protocol import Evaluation
from training.retrieval.report import camera_tables, table
from training.retrieval.rerank import PAPER
from training.retrieval.single_shot import SingleShot


def metrics(rank1: float) -> RankMetrics:
    return RankMetrics((rank1, *[1.0] * 49), 0.5, 0.25, 0.125, 9, 1)


def printed(*tables: Table) -> str:
    screen = io.StringIO()
    Console(file=screen, width=200).print(*tables)
    return screen.getvalue()


def row(text: str, name: str) -> list[str]:
    """The cells after `name`, in the line that it begins."""
    line = next(line for line in text.splitlines() if line.strip(" │").startswith(name))
    return [cell.strip() for cell in line.strip("│ ").split("│")][1:]


def evaluation(**further: object) -> Evaluation:
    plain = Evaluation("own.onnx", None, "drawn", "test", False, (64, 32), 24, 10, 23, metrics(0.8), 1.5)
    return Evaluation(**{**vars(plain), **further})


def test_what_was_measured_is_a_row_each() -> None:
    shot = SingleShot((0.6, *[1.0] * 49), 0.75, 10, 9, 1)
    text = printed(
        table(evaluation(rerank=PAPER, reranked=metrics(0.9), multi_query=metrics(0.95), single_gallery_shot=shot))
    )
    assert row(text, "single query") == ["80.00", "100.00", "100.00", "100.00", "50.00", "25.00", "12.50"]
    assert row(text, "re-ranked")[0] == "90.00"
    assert row(text, "multi-query")[0] == "95.00"
    assert row(text, "single gallery shot") == ["60.00", "100.00", "100.00", "100.00", "75.00", "-", "-"]
    for words in ("10 queries (1 without a match)", "k1 20, k2 6, lambda 0.3", "10 draws a query", "flip off"):
        assert words in text


def test_what_was_not_measured_is_no_row() -> None:
    text = printed(table(evaluation(cameras=False)))
    assert "cameras unknown" in text
    for name in ("re-ranked", "multi-query", "single gallery shot"):
        assert name not in text


def test_camera_pairs_are_two_matrices() -> None:
    pairs = CameraPairs(
        (1, 2),
        (-1, 1, 2),
        ((0.5, None, 1.0), (0.25, 0.75, None)),
        ((0.1, None, 0.2), (0.3, 0.4, None)),
        ((2, 0, 1), (1234, 4, 0)),
    )
    first, second = camera_tables(evaluation(camera_pairs=pairs))
    assert row(printed(first), "c1") == ["50.00 (2)", "-", "100.00 (1)"]
    assert row(printed(first), "c2") == ["25.00 (1,234)", "75.00 (4)", "-"]
    assert row(printed(second), "c2") == ["30.00 (1,234)", "40.00 (4)", "-"]
    assert "unknown" in printed(first)
    named, _ = camera_tables(evaluation(camera_pairs=pairs, camera_names={1: "gate [1]", 2: "yard"}))
    assert row(printed(named), "yard") == ["25.00 (1,234)", "75.00 (4)", "-"]
    assert "gate [1]" in printed(named)
    assert camera_tables(evaluation()) == []


def test_what_ready_embeddings_do_not_tell_is_not_claimed() -> None:
    assert "flip unknown" in printed(table(evaluation(flip=None)))
