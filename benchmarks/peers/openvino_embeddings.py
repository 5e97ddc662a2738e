"""The embeddings of OpenVINO's re-identification models, for `training/evaluate.py` to measure as it measures ours.

    .venv-peers/bin/python -m benchmarks.peers.openvino_embeddings MODEL.xml --data market1501 --output FOLDER
    .venv/bin/python training/evaluate.py FOLDER --data market1501

FOLDER gets query.npy and gallery.npy. MODEL may be an ONNX file, too, which OpenVINO reads as it is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from training.arguments import terminal
from training.data.dataset import DataError, Sample
from training.data.reading import read
from training.retrieval.embedded import Embedded
from training.retrieval.embedding import Embeddings, embed_samples
from training.retrieval.onnx_model import INPUT_LAYOUTS, ModelError, fixed_sizes
from training.retrieval.ranking import ranking_of

ZOO = "nchw-float-bgr-255"  # what the models of OpenVINO's zoo take


class OpenVinoModel:
    """A model on the CPU in float32: `embed` turns crops of `height` x `width` into embeddings.

    Args:
        path: OpenVINO's .xml, with its .bin beside it, or an ONNX file.
        layout: a key of INPUT_LAYOUTS.

    Raises:
        ModelError: it cannot be loaded, or is no function from crops to embeddings.
    """

    def __init__(self, path: Path, layout: str = ZOO) -> None:
        import openvino

        self.path = path
        self._layout = INPUT_LAYOUTS[layout]
        core = openvino.Core()
        try:
            model = core.read_model(path)
            sides = [side.get_length() if side.is_static else None for side in model.input().partial_shape]
            _, self.height, self.width = fixed_sizes(path, self._layout, sides, None)
            model.reshape([-1, *sides[1:]])  # they are stored for one crop at a time
            compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        except RuntimeError as error:  # the base of what OpenVINO raises
            raise ModelError(f"{path} is no model of crops that OpenVINO can load: {error}") from error
        self._request = compiled.create_infer_request()

    def embed(self, crops: NDArray[np.uint8]) -> Embeddings:
        """Embeddings float32 [N, D] of crops uint8 [N, height, width, 3] RGB."""
        found = self._request.infer([self._layout.apply(crops, np.float32)])[0]
        return np.array(found, np.float32).reshape(len(crops), -1)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 written, 2 not possible."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="MODEL", help="OpenVINO's .xml, or an ONNX file")
    parser.add_argument("--data", type=Path, required=True, metavar="PATH")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--input-layout", choices=INPUT_LAYOUTS, default=ZOO, help=f"default {ZOO}")
    options = parser.parse_args(argv)
    try:
        embedded = embeddings(OpenVinoModel(options.model, options.input_layout), options.data)
        embedded.save(options.output)
    except ImportError as error:
        print(f"error: {error}; benchmarks/peers/requirements.txt lists what it needs", file=sys.stderr)
        return 2
    except (DataError, ModelError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def embeddings(model: OpenVinoModel, path: Path) -> Embedded:
    """Those of a data set's test part, in the order in which `training/evaluate.py` reads them."""
    ranking, console = ranking_of(read(path), "test"), terminal()
    with Progress(console=console, disable=console is None) as bar:
        task = bar.add_task("embedding", total=len(ranking.query) + len(ranking.gallery))

        def embed(samples: Sequence[Sample]) -> Embeddings:
            return embed_samples(model, samples, advance=lambda n: bar.update(task, advance=n))

        return Embedded(embed(ranking.query), embed(ranking.gallery))


if __name__ == "__main__":
    sys.exit(main())
