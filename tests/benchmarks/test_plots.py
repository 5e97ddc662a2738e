"""A peer is known by its colour from one picture to the next."""

from __future__ import annotations

from matplotlib.colors import to_hex

from benchmarks import engine, plots, search, service
from benchmarks.results import Figure


def test_a_subject_has_its_own_look_in_every_picture() -> None:
    on_cpu = [name for name in search.LABELS if name not in (*search.ON_GPU, search.MILVUS)]
    pictures = (
        [one.label for one in engine.contenders("cpu", list(engine.LABELS))],
        [service.OURS, *service.PEERS.values()],
        [search.LABELS[name] for name in on_cpu],
    )
    for subjects in pictures:
        assert len({plots.LOOKS[subject] for subject in subjects}) == len(subjects)


def test_a_bar_has_the_look_of_its_subject_whoever_is_beside_it() -> None:
    alone, beside = Figure("usearch", "1 query", "ms", (1.0,)), Figure("hnswlib", "1 query", "ms", (2.0,))
    for figures in ([alone], [beside, alone]):
        (axes,) = plots.bars(figures, "title", "ms").axes
        bar = axes.patches[figures.index(alone)]
        assert to_hex(bar.get_facecolor()) == plots.LOOKS["usearch"][0]
