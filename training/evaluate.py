"""Measure a model on a data set: `python training/evaluate.py models/market1501-int8.onnx --data market1501`.

The model is an ONNX file, run without torch; a checkpoint of a training run; or a folder with embeddings
computed elsewhere (query.npy and gallery.npy, float [N, D], in the order of the sorted picture names,
junk left out: what `--save` writes).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from training.data import market1501
from training.data.dataset import JUNK, DataError, Dataset, Sample
from training.retrieval.embedding import Embeddings, Model, embed_samples
from training.retrieval.metrics import LabelledPair, RankMetrics, rank_metrics
from training.retrieval.onnx_model import INPUT_LAYOUTS, OnnxModel

Split = Literal["test", "train"]
PRINTED_RANKS = (1, 5, 10, 20)
PROTOCOLS: dict[Split, str] = {
    "test": "single query, same identity in the same camera and junk left out, distractors kept",
    "train": "identities seen in training; the first crop of each in each camera is its query",
}


@dataclass(frozen=True)
class Ranking:
    """The pictures that ask and the pictures that answer, in the order of the embeddings."""

    query: tuple[Sample, ...]
    gallery: tuple[Sample, ...]

    def labels(self) -> LabelledPair:
        return LabelledPair.of(
            [sample.identity for sample in self.query],
            [sample.camera for sample in self.query],
            [sample.identity for sample in self.gallery],
            [sample.camera for sample in self.gallery],
        )


@dataclass(frozen=True)
class Evaluation:
    """What was measured on what."""

    model: str  # path as given
    sha256: str | None  # of the file; None for a folder of embeddings
    data: str
    split: Split
    flip: bool
    size: tuple[int, int] | None  # height, width of the crops; None for a folder of embeddings
    dim: int
    queries: int
    gallery: int
    metrics: RankMetrics
    seconds: float  # embedding and ranking

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, with the protocol and the usual ranks spelt out."""
        ranks = {f"rank{k}": self.metrics.rank(k) for k in PRINTED_RANKS}
        return {**asdict(self), **ranks, "protocol": PROTOCOLS[self.split], "distance": "euclidean/2"}


@dataclass(frozen=True)
class Embedded:
    """Unit embeddings of a ranking: query [Q, D] and gallery [G, D]."""

    query: Embeddings
    gallery: Embeddings

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "query.npy", self.query)
        np.save(folder / "gallery.npy", self.gallery)


def evaluate_onnx(
    path: Path,
    data: Dataset | Path,
    *,
    split: Split = "test",
    batch: int = 16,
    flip: bool = False,
    threads: int = 0,
    layout: str | None = None,
    size: tuple[int, int] | None = None,
    output: str | None = None,
    save: Path | None = None,
    console: Console | None = None,
) -> Evaluation:
    """Evaluate an ONNX file; `layout`, `size`, `output` as in `OnnxModel`, for files that are not ours.

    Args:
        data: a data set, or the folder of one in Market-1501 layout.
        flip: embed each crop and its mirror image, and use the mean of both.
        save: folder for the embeddings.
        console: for a progress bar; None shows none.

    Raises:
        ModelError, DataError: the file or the data cannot be used; the message says why.
    """
    model = OnnxModel(path, layout=layout, size=size, output=output, threads=threads)
    return _evaluate(model, path, data, split, batch, flip, save, console)


def evaluate_checkpoint(
    path: Path,
    data: Dataset | Path,
    *,
    split: Split = "test",
    batch: int = 16,
    flip: bool = False,
    threads: int = 0,
    save: Path | None = None,
    console: Console | None = None,
) -> Evaluation:
    """Evaluate a checkpoint of a training run with torch; arguments as in `evaluate_onnx`."""
    from training.retrieval.torch_model import TorchModel  # only here: an ONNX file needs no torch

    return _evaluate(TorchModel(path, threads), path, data, split, batch, flip, save, console)


def evaluate_embeddings(folder: Path, data: Dataset | Path, *, split: Split = "test") -> Evaluation:
    """Evaluate query.npy and gallery.npy of `folder`.

    Raises:
        DataError: an array is missing, or its rows are not the data set's pictures.
    """
    dataset = _read(data)
    ranking = ranking_of(dataset, split)
    began = time.monotonic()
    embedded = Embedded(
        _load(folder / "query.npy", len(ranking.query)), _load(folder / "gallery.npy", len(ranking.gallery))
    )
    return _measure(folder, dataset, split, embedded, began)


def ranking_of(data: Dataset, split: Split) -> Ranking:
    """Queries and gallery of a split. `train` shows what was memorised: compare with `test`.

    Raises:
        DataError: the train part has one picture an identity and camera, so that no gallery is left.
    """
    if split == "test":
        return Ranking(data.query, tuple(sample for sample in data.gallery if sample.identity != JUNK))
    first: dict[tuple[int, int], Sample] = {}
    for sample in data.train:
        first.setdefault((sample.identity, sample.camera), sample)
    queries = set(first.values())
    gallery = tuple(sample for sample in data.train if sample not in queries)
    if not gallery:
        raise DataError(f"{data.name}: every identity has one training picture a camera; there is no gallery")
    return Ranking(tuple(first.values()), gallery)


def _evaluate(
    model: Model,
    path: Path,
    data: Dataset | Path,
    split: Split,
    batch: int,
    flip: bool,
    save: Path | None,
    console: Console | None,
) -> Evaluation:
    dataset = _read(data)
    ranking = ranking_of(dataset, split)
    began = time.monotonic()
    with _progress(console) as bar:
        task = bar.add_task("embedding", total=len(ranking.query) + len(ranking.gallery))

        def embed(samples: Sequence[Sample]) -> Embeddings:
            return embed_samples(model, samples, batch, flip, lambda n: bar.update(task, advance=n))

        embedded = Embedded(embed(ranking.query), embed(ranking.gallery))
    if save is not None:
        embedded.save(save)
    return _measure(path, dataset, split, embedded, began, size=(model.height, model.width), flip=flip)


def _measure(
    path: Path,
    data: Dataset,
    split: Split,
    embedded: Embedded,
    began: float,
    *,
    size: tuple[int, int] | None = None,
    flip: bool = False,
) -> Evaluation:
    metrics = rank_metrics(embedded.query, embedded.gallery, ranking_of(data, split).labels())
    return Evaluation(
        model=str(path),
        sha256=_sha256(path) if path.is_file() else None,
        data=data.name,
        split=split,
        flip=flip,
        size=size,
        dim=embedded.query.shape[1],
        queries=len(embedded.query),
        gallery=len(embedded.gallery),
        metrics=metrics,
        seconds=round(time.monotonic() - began, 2),
    )


def _read(data: Dataset | Path) -> Dataset:
    return data if isinstance(data, Dataset) else market1501.read(data)


def _load(path: Path, rows: int) -> Embeddings:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is no readable .npy file: {error}") from error
    if array.ndim != 2 or len(array) != rows or array.dtype.kind != "f":
        raise DataError(
            f"{path} holds {array.dtype} {array.shape}: floats ({rows}, D) are needed, one row a picture in the "
            "order of the sorted names, junk left out"
        )
    return np.asarray(array, np.float32)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _progress(console: Console | None) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=console is None)


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


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 measured, 2 bad input."""
    options = _parser().parse_args(argv)
    try:
        evaluation = _dispatch(options)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(evaluation.as_dict(), indent=2))
    else:
        Console().print(table(evaluation))
    return 0


def _dispatch(options: argparse.Namespace) -> Evaluation:
    path: Path = options.model
    data = market1501.read(options.data)
    foreign = {"layout": options.input_layout, "size": options.size, "output": options.output}
    common: dict[str, Any] = {"split": options.split}
    if path.is_dir():
        if options.flip or options.save or any(foreign.values()):
            raise ValueError(f"{path} holds ready embeddings: flip, save and the model's options do not apply")
        return evaluate_embeddings(path, data, **common)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file or folder")
    common |= {"batch": options.batch, "flip": options.flip, "threads": options.threads}
    common |= {"save": options.save, "console": Console(stderr=True)}
    if path.suffix != ".pt":
        return evaluate_onnx(path, data, **foreign, **common)
    if any(foreign.values()):
        raise ValueError(f"{path} is a checkpoint: --input-layout, --size and --output are for ONNX files")
    return evaluate_checkpoint(path, data, **common)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="FILE", help=".onnx, .pt, or a folder of embeddings")
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="data set in Market-1501 layout, folders or zips",
    )
    parser.add_argument("--split", choices=get_args(Split), default="test")
    parser.add_argument("--batch", type=_positive, default=16, metavar="N")
    parser.add_argument("--threads", type=_count, default=0, metavar="N", help="0: as many as cores (default)")
    parser.add_argument("--flip", action="store_true", help="mean over each crop and its mirror image")
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="write query.npy and gallery.npy there")
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of a table")
    foreign = parser.add_argument_group("ONNX files of other programs")
    foreign.add_argument("--input-layout", choices=list(INPUT_LAYOUTS))
    foreign.add_argument("--size", type=_size, metavar="HxW", help="of the crops, where the file leaves it open")
    foreign.add_argument("--output", metavar="NAME", help="the embedding, where there are several outputs")
    return parser


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def _count(text: str) -> int:
    if (number := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return number


def _size(text: str) -> tuple[int, int]:
    height, cross, width = text.lower().partition("x")
    if not cross:
        raise argparse.ArgumentTypeError(f"{text} is not HEIGHTxWIDTH, such as 256x128")
    return _positive(height), _positive(width)


if __name__ == "__main__":
    sys.exit(main())
