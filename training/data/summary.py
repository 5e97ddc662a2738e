"""Cameras, people and images of the three parts of a data set: the paper's Table 2, where it is in that."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import NamedTuple

from rich import box
from rich.table import Table

from training.data.cuhk03 import CUHK03
from training.data.dataset import DISTRACTOR, JUNK, UNKNOWN_CAMERA, Dataset, people
from training.data.dukemtmc import DUKEMTMC
from training.data.market1501 import MARKET1501

PICTURES, PEOPLE = 10, 100  # of each person, and in all, below which training lacks some


class Row(NamedTuple):
    """A line of the table; people are counted without distractors and junk."""

    cameras: int
    train_people: int
    train_images: int
    query_people: int
    query_images: int
    gallery_people: int
    gallery_images: int


_PAPER_CUHK03 = Row(2, 767, 7_365, 700, 1_400, 700, 5_332)
# As printed. The paper has one line for CUHK03, and it is the detected set's.
PAPER: dict[str, Row] = {
    MARKET1501.name: Row(6, 751, 12_936, 750, 3_368, 750, 19_732),
    DUKEMTMC.name: Row(8, 702, 16_522, 702, 2_228, 1_110, 17_661),
    CUHK03["labeled"].name: _PAPER_CUHK03,
    CUHK03["detected"].name: _PAPER_CUHK03,
}


def count(data: Dataset) -> Row:
    """The line of a data set; unknown cameras are not counted."""
    samples = (*data.train, *data.query, *data.gallery)
    return Row(
        len({sample.camera for sample in samples} - {UNKNOWN_CAMERA}),
        *(number for part in (data.train, data.query, data.gallery) for number in (people(part), len(part))),
    )


def table(data: Dataset) -> Table:
    """The table of a data set; for one of the paper's, its Table 2 with the paper's line below ours."""
    paper = PAPER.get(data.name)
    title = f"cameras, people and images of {data.name}" if paper is None else f"Table 2: {data.name}"
    shown = Table(title=title, box=box.ASCII)
    if paper is not None:
        shown.add_column("counted")
    shown.add_column("cameras", justify="right")
    for part in ("train", "query", "gallery"):
        shown.add_column(f"{part}\npeople", justify="right")
        shown.add_column(f"{part}\nimages", justify="right")
    here = [f"{number:,}" for number in count(data)]
    if paper is None:
        shown.add_row(*here)
    else:
        shown.add_row("here", *here)
        shown.add_row("in the paper", *(f"{number:,}" for number in paper))
    return shown


def remarks(data: Dataset) -> list[str]:
    """What the table does not say, a sentence each."""
    kinds = Counter(sample.identity for sample in data.gallery)
    asked = {sample.identity for sample in data.query} | {DISTRACTOR, JUNK}
    strangers = [sample for sample in data.gallery if sample.identity not in asked]
    distractors, junk = kinds[DISTRACTOR], kinds[JUNK]
    said = [
        (distractors, f"gallery: {distractors:,} images are distractors (identity 0000), which count as wrong"),
        (junk, f"gallery: {junk:,} images are junk (identity -1), which the protocol ignores"),
        (strangers, f"gallery: {people(strangers):,} people ({len(strangers):,} images) are no query's"),
        (data.left_out, f"train: {data.left_out:,} images of junk and distractors are left out"),
        (data.multi_query, f"multi-query: {len(data.multi_query):,} images"),
        (data.name == CUHK03["labeled"].name, "the paper's line for CUHK03 is the detected set's"),
    ]
    return [*(sentence for applies, sentence in said if applies), *data.notes, *wanting(data)]


def wanting(data: Dataset) -> list[str]:
    """What one's own pictures lack of what training wants (docs/training.md), a sentence each."""
    if not data.is_own:
        return []
    cameras, pictures = defaultdict[int, set[int]](set), Counter[int]()
    for sample in (*data.train, *data.query, *data.gallery):
        cameras[sample.identity].add(sample.camera)
        pictures[sample.identity] += 1
    known = count(data).cameras > 0
    alone = sum(known and len(seen - {UNKNOWN_CAMERA}) < 2 for seen in cameras.values())
    few = sum(number < PICTURES for number in pictures.values())
    said = [
        (
            alone,
            f"{alone:,} of {len(pictures):,} people are not seen by two known cameras, which teaches most",
        ),
        (few, f"{few:,} of {len(pictures):,} people have fewer than {PICTURES} pictures"),
        (len(pictures) < PEOPLE, f"{len(pictures):,} people: enough to measure a model; training wants hundreds"),
    ]
    return [sentence for applies, sentence in said if applies]
