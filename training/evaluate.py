"""Measure a model on a data set: `python training/evaluate.py models/market1501-int8.onnx --data market1501`.

The model is an ONNX file, run without torch; a checkpoint of a training run, or the run's folder; or a folder with
embeddings computed elsewhere (query.npy and gallery.npy, float [N, D], in the order of the sorted picture names, junk
left out: what `--save` writes; for --multi-query also multi_query.npy, of the pictures of gt_bbox whose
identity and camera a query has).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from training.packages import INTERRUPTED, missing, needed

with needed(__name__):
    from training.arguments import page, positive, terminal, threads
    from training.data.dataset import Dataset
    from training.data.holdout import only_cameras
    from training.data.reading import LAYOUTS, read
    from training.loop.files import NotWritten, make_folder
    from training.printing import printing
    from training.retrieval.advice import advice
    from training.retrieval.onnx_model import INPUT_LAYOUTS, MOST_SIDE, OnnxModel
    from training.retrieval.protocol import Evaluation, Options, StoredModel, evaluate, evaluate_embeddings
    from training.retrieval.ranking import Split
    from training.retrieval.report import camera_tables, table
    from training.retrieval.rerank import PAPER


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 measured, 1 the embeddings could not be written, 2 bad input, 130 interrupted."""
    options = parse(argv)
    try:
        evaluation, remarks = measure(options)
        with printing():
            show(evaluation, remarks, options.json)
    except ImportError as error:  # of a checkpoint, which needs torch
        print(f"error: {missing(error)}", file=sys.stderr)
        return 2
    except NotWritten as error:
        print(f"stopped: {error}", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped: nothing was measured", file=sys.stderr)
        return INTERRUPTED
    return 0


def show(evaluation: Evaluation, remarks: Sequence[str], as_json: bool) -> None:
    """Tables with the remarks below them, or a JSON object with the remarks on the error stream."""
    if as_json:
        print(json.dumps(evaluation.as_dict(), indent=2))
    else:
        page().print(table(evaluation), *camera_tables(evaluation))
    for remark in remarks:
        print(remark, file=sys.stderr if as_json else sys.stdout)


def measure(options: argparse.Namespace) -> tuple[Evaluation, list[str]]:
    """Evaluate what was named, as it was asked; and what is to be known of the figures."""
    data = only_cameras(read(options.data, options.layout, ignore_cameras=options.ignore_cameras), options.camera)
    for note in data.notes:
        print(f"note: {note}", file=sys.stderr)
    evaluation = measure_on(data, options)
    return evaluation, advice(evaluation, data, options.data)


def measure_on(data: Dataset, options: argparse.Namespace) -> Evaluation:
    """Evaluate the model or the embeddings that were named."""
    path: Path = options.model
    console = terminal()
    asked = Options(
        rerank=PAPER if options.rerank else None,
        single_gallery_shot=options.single_gallery_shot,
        camera_pairs=options.camera_pairs,
        multi_query=options.multi_query,
    )
    if path.is_dir() and not any(path.glob("*.pt")):  # else the folder of a run
        if options.flip or options.save or options.device or options.camera or any(_foreign(options).values()):
            raise ValueError(f"{path} holds ready embeddings: flip, save, camera and the model's options do not apply")
        return evaluate_embeddings(path, data, split=options.split, console=console, options=asked)
    model = open_model(options)
    if options.save is not None:
        make_folder(options.save)  # before hours of embedding, not after
    return evaluate(
        model,
        data,
        split=options.split,
        batch=options.batch,
        flip=options.flip,
        save=options.save,
        console=console,
        options=asked,
    )


def open_model(options: argparse.Namespace) -> StoredModel:
    """The ONNX file or the checkpoint.

    Raises:
        ValueError, OSError: it cannot be used so; the message says why.
    """
    path: Path = options.model
    foreign = _foreign(options)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if path.suffix != ".pt" and not path.is_dir():
        if options.device:
            raise ValueError(f"{path} is no checkpoint: --device is for checkpoints, ONNX files run on the CPU")
        return OnnxModel(path, threads=options.threads, **foreign)
    if any(foreign.values()):
        raise ValueError(f"{path} is a checkpoint: --input-layout, --size and --output are for ONNX files")
    # Only here: an ONNX file needs no torch.
    from training.network.device import find_device
    from training.retrieval.torch_model import TorchModel

    return TorchModel(path, find_device(options.device or "cpu"), options.threads)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="FILE", help=".onnx, .pt, a run's folder, or one of embeddings")
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="PATH",
        help="data set: a folder, with folders or zips in it, or a CSV file",
    )
    parser.add_argument("--layout", choices=LAYOUTS, help="how it is laid out (default: found out by looking)")
    parser.add_argument(
        "--split",
        choices=get_args(Split),
        default="test",
        help="the people to measure on: of the test part (default), of the training part, or all, for a model that "
        "learnt from none of them",
    )
    parser.add_argument("--batch", type=positive, default=16, metavar="N")
    parser.add_argument("--threads", type=threads, default=0, metavar="N", help="0: as many as cores (default)")
    parser.add_argument("--device", help="for a checkpoint: cpu (default), cuda or cuda:N")
    parser.add_argument("--flip", action="store_true", help="mean over each crop and its mirror image")
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="write the embeddings there, as .npy")
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of a table")
    measures = parser.add_argument_group("what is measured besides")
    measures.add_argument(
        "--ignore-cameras", action="store_true", help="take cameras as unknown: a match of any camera counts"
    )
    measures.add_argument(
        "--camera", action="append", default=[], metavar="NAME", help="only this camera's pictures; repeatable"
    )
    measures.add_argument("--rerank", action="store_true", help="k-reciprocal re-ranking (k1 20, k2 6, lambda 0.3)")
    measures.add_argument("--multi-query", action="store_true", help="all pictures of a person in a camera ask as one")
    measures.add_argument("--camera-pairs", action="store_true", help="rank-1 and mAP for every pair of cameras")
    measures.add_argument(
        "--single-gallery-shot",
        action="store_true",
        help="CUHK03's classic metric, one gallery picture a person (on CUHK03: always)",
    )
    foreign = parser.add_argument_group("ONNX files of other programs")
    foreign.add_argument("--input-layout", choices=list(INPUT_LAYOUTS))
    foreign.add_argument("--size", type=_size, metavar="HxW", help="of the crops, where the file leaves it open")
    foreign.add_argument("--output", metavar="NAME", help="the embedding, where there are several outputs")
    return parser.parse_args(argv)


def _foreign(options: argparse.Namespace) -> dict[str, Any]:
    """What describes a file that is not ours, as arguments of `OnnxModel`."""
    return {"layout": options.input_layout, "size": options.size, "output": options.output}


def _size(text: str) -> tuple[int, int]:
    height, cross, width = text.lower().partition("x")
    if not cross:
        raise argparse.ArgumentTypeError(f"{text} is not HEIGHTxWIDTH, such as 256x128")
    size = positive(height), positive(width)
    if max(size) > MOST_SIDE:
        raise argparse.ArgumentTypeError(f"{text} is more than {MOST_SIDE} pixels high or wide")
    return size


if __name__ == "__main__":
    sys.exit(main())
